#!/usr/bin/env bash
# Lists the nodes of an allocation that can take ranks now, one NODE:RANKS a line: horovodrun asks every second.
#   discover.sh RANKS NODE...
set -euo pipefail
ranks=$1
shift
for node in "$@"; do
    # A node that is down, or cut off, does not say what its ssh server is. Listing it would end the job.
    # shellcheck disable=SC2016 # expanded by the inner shell
    if timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/22" && read -r -t 1 -u 3 line && [[ $line == SSH-* ]]' "$node" 2>/dev/null; then
        echo "$node:$ranks"
    fi
done
