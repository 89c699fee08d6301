#!/usr/bin/env bash
# Runs the training job on this machine with the project's own environment; no activation, works from any folder.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/local.sh [-np N] [--mpi | --gloo] [--restarts N] [-x NAME]... [--] [options of train.py]

  -np N          ranks to start (default: the number of cores, at most 4)
  --mpi          ranks talk through Open MPI (default)
  --gloo         ranks talk through Gloo
  --restarts N   where a rank dies, go on from the last checkpoint, up to N times (default: 0); a mistake (exit code 2)
                 and a request to stop (75) are no such death
  -x NAME        let the ranks have this environment variable as well (repeat it for more): they get PATH, HOME, locale,
                 PYTHON*, HOROVOD_*, OMPI_*, NCCL_*, TF_* and the like, and under Gloo their values stand on command
                 lines

Everything else goes to train.py; put -- before it where an option has one of the names above.

Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 to this script makes the job save and stop; a second Ctrl-C or SIGTERM ends it at
once. (Gloo's launcher gives the ranks 5 seconds to save, Open MPI's as long as they need.)

examples:
  launch/local.sh                                   two to four ranks, train.py's defaults
  launch/local.sh -np 2 --preset lunarlander        a preset on two ranks
  launch/local.sh --gloo -np 4 -- --seed 7
  launch/local.sh --restarts 10 -- --total-env-steps 10000000
TEXT
}

fail() {
    printf 'launch/local.sh: %s\n' "$@" >&2
    exit 2
}

# nproc reads the cores that this process may use, but also OMP_NUM_THREADS, which says something else.
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
ranks=$((cores < 4 ? cores : 4))
controller=mpi
restarts=0
named=()
while (($#)); do
    case $1 in
        -np | --np | -n)
            (($# > 1)) || fail "$1 needs a number, e.g. $1 2"
            ranks=$2
            shift 2
            ;;
        --restarts)
            (($# > 1)) || fail "$1 needs a number, e.g. $1 3"
            restarts=$2
            shift 2
            ;;
        --mpi | --gloo)
            controller=${1#--}
            shift
            ;;
        -x)
            (($# > 1)) || fail "-x needs a variable's name"
            named+=("$2")
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
        *) break ;;
    esac
done
[[ $ranks =~ ^[1-9][0-9]*$ ]] || fail "-np $ranks: must be a number of 1 or more"

[[ $restarts =~ ^(0|[1-9][0-9]{0,5})$ ]] || fail "--restarts $restarts: must be a number of 0 or more"

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
if [[ ! -x $root/.venv/bin/horovodrun ]]; then
    fail "$root/.venv is missing or incomplete" "create it with: make -C $root setup"
fi

# horovodrun starts the `python` and the `mpirun` that come first in PATH.
export PATH="$root/.venv/bin:$PATH"
# horovodrun itself imports TensorFlow, which has much to say about GPUs that are not there.
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
if ((EUID == 0)); then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# shellcheck source=launch/common.sh
source "$root/launch/common.sh"
check_named "${named[@]}"
keep_only "${named[@]}"
trap 'ask_to_stop "$controller"' INT TERM HUP USR1

# Rank 0 tells here which run directory it writes, and how the job ended: Gloo's launcher makes a 1 of every exit code.
HVD_DQN_STATUS_FILE=$(mktemp "${TMPDIR:-/tmp}/hvd_dqn-status-XXXXXX")
export HVD_DQN_STATUS_FILE
trap 'rm -f "$HVD_DQN_STATUS_FILE"' EXIT

told() {
    sed -n "s/^$1=//p" "$HVD_DQN_STATUS_FILE" | tail -n 1
}

# Starts the job and waits for its end; sets `code`.
run() {
    local command=(horovodrun "--$controller" -np "$ranks" python "$root/train.py" "$@")
    echo "${command[*]}" >&2
    code=0
    run_and_wait "${command[@]}" || code=$?
}

run "$@"
for ((restart = 1; restart <= restarts; restart++)); do
    if ((code == 0 || requests > 0)) || [[ -n $(told exit_code) ]]; then
        break
    fi
    directory=$(told run_directory)
    echo "launch/local.sh: a rank died (exit code $code); restart $restart of $restarts${directory:+ from $directory}" >&2
    run "$@" ${directory:+--resume "$directory"}
done
ended=$(told exit_code)
exit "${ended:-$code}"
