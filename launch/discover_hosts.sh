#!/usr/bin/env bash
# Prints the hosts of a file that can be used now: the host discovery script of horovodrun's elastic mode.
#
#   launch/discover_hosts.sh [FILE]      FILE, or $HVD_DQN_HOSTS: one `host` or `host:slots` a line, # begins a comment
#
# A host is printed if its ssh server answers within a second. A dead host that is listed would end the job: the ranks
# that are left wait for it in vain. Names of this machine need no ssh. The file may change while the job runs.
set -euo pipefail

file=${1:-${HVD_DQN_HOSTS:-}}
if [[ ! -f $file || ! -r $file ]]; then
    echo "launch/discover_hosts.sh: no hosts file '$file': name one as the argument or in HVD_DQN_HOSTS" >&2
    exit 1
fi
# horovodrun runs this script once a second; SSH_PORT is for servers on another port than 22.
port=${SSH_PORT:-22}
names=" localhost $(hostname) $(hostname -f 2>/dev/null || true) $(hostname -I 2>/dev/null || true) "

answers() {
    # The server speaks first: "SSH-2.0-...".
    # shellcheck disable=SC2016
    timeout 1 bash -c 'exec 3<>"/dev/tcp/$1/$2" && read -r -u 3 greeting && [[ $greeting == SSH-* ]]' _ "$1" "$port" \
        2>/dev/null
}

probe() {
    if [[ $1 == 127.* || $names == *" $1 "* ]] || answers "$1"; then
        echo "$1:$2"
    fi
}

# All at once: one dead host after the other would take a second each.
while IFS=: read -r host slots || [[ -n $host ]]; do
    host=${host%%#*} slots=${slots%%#*}
    host=${host//[[:space:]]/} slots=${slots//[[:space:]]/}
    [[ -n $host ]] || continue
    probe "$host" "${slots:-1}" &
done <"$file"
wait
