#!/usr/bin/env bash
# Runs the training job on ranks that may come and go, under Horovod's elastic driver.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/elastic.sh --hosts FILE [-np N] [--min-np N] [--max-np N] [-x NAME]... [options of horovodrun]
                         -- [options of train.py]

  --hosts FILE   one `host` or `host:slots` per line; may change while the job runs. Hosts that do not answer are left out
                 (launch/discover_hosts.sh).
  -np N          ranks to start with (default: 2)
  --min-np N     with fewer ranks the job waits for more, for --elastic-timeout seconds (default: 1)
  --max-np N     the most ranks to start (default: 64)
  -x NAME        pass this environment variable to the ranks as well (may be repeated); they get PATH, HOME, locale,
                 PYTHON*, HOROVOD_*, NCCL_*, TF_* and similar variables, whose values are visible on ssh's command lines

All hosts need this folder and the folder of the runs at the same path, and ssh without a password from here.
A host that lost a rank is tried again after 20 to 60 seconds, then less often (--blacklist-cooldown-range).
Gloo gives up on a silent host, or on a rank that is starting, after 60 seconds (--gloo-timeout-seconds).

example:
  printf 'node1:1\nnode2:1\n' > hosts
  launch/elastic.sh --hosts hosts -np 2 --network-interfaces eth0 -- --preset cartpole --name long
TEXT
}

fail() {
    printf 'launch/elastic.sh: %s\n' "$@" >&2
    exit 2
}

hosts='' ranks=2 least=1 most=64 options=() named=()
while (($#)); do
    case $1 in
        --hosts | -np | --np | -n | --min-np | --max-np | -x)
            (($# > 1)) || fail "$1 needs a value"
            case $1 in
                --hosts) hosts=$2 ;;
                -x) named+=("$2") ;;
                --min-np) least=$2 ;;
                --max-np) most=$2 ;;
                *) ranks=$2 ;;
            esac
            shift 2
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        --)
            shift
            break
            ;;
        *)
            options+=("$1")
            shift
            ;;
    esac
done
[[ -f $hosts && -r $hosts ]] || fail "--hosts '$hosts': give a file with one host a line"
hosts=$(realpath -- "$hosts")

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
if [[ ! -x $root/.venv/bin/horovodrun ]]; then
    fail "$root/.venv is missing or incomplete" "create it with: make -C $root setup"
fi

# shellcheck source=launch/common.sh
source "$root/launch/common.sh"
check_named "${named[@]}"
keep_only SSH_PORT "${named[@]}" # which launch/discover_hosts.sh asks for

# horovodrun starts the `python` that comes first in PATH, and itself imports TensorFlow, which has much to say.
export PATH="$root/.venv/bin:$PATH"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"

# The last of an option that is given twice counts, so the defaults come first.
command=(
    horovodrun --gloo -np "$ranks" --min-np "$least" --max-np "$most"
    --host-discovery-script "$(printf '%q %q' "$root/launch/discover_hosts.sh" "$hosts")"
    --blacklist-cooldown-range 10 60 --gloo-timeout-seconds 60
    "${options[@]}" python "$root/train.py" "$@"
)
trap 'ask_to_stop gloo' INT TERM HUP USR1
code=0
run_and_wait "${command[@]}" || code=$?
exit "$code"
