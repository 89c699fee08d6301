#!/usr/bin/env bash
# Runs the training job on this machine with the project's own environment; no activation, works from any folder.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/local.sh [-np N] [--mpi | --gloo] [--restarts N] [-x NAME]... [--] [options of train.py]

  -np N          ranks to start (default: the number of cores that the job may use, at most 4)
  --mpi          ranks communicate through Open MPI (default)
  --gloo         ranks communicate through Gloo
  --restarts N   if a rank dies, continue from the last checkpoint, up to N times (default: 0); not after a mistake
                 (exit code 2) or a request to stop (75)
  -x NAME        pass this environment variable to the ranks as well (may be repeated); they get PATH, HOME, locale,
                 PYTHON*, HOROVOD_*, OMPI_*, NCCL_*, TF_* and similar variables; with Gloo their values are visible
                 on command lines

All other options go to train.py. Put -- before them if one has a name from the list above.

Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 to this script makes the job save and stop. A second Ctrl-C or SIGTERM ends it at
once. (With Gloo the ranks have 5 seconds to save, with Open MPI as long as they need.)

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

ranks=''
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
[[ -z $ranks || $ranks =~ ^[1-9][0-9]*$ ]] || fail "-np $ranks: must be a number of 1 or more"
[[ $restarts =~ ^(0|[1-9][0-9]{0,5})$ ]] || fail "--restarts $restarts: must be a number of 0 or more"

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
if [[ ! -x $root/.venv/bin/horovodrun ]]; then
    fail "$root/.venv is missing or incomplete" "create it with: make -C $root setup"
fi

if [[ -z $ranks ]]; then
    count='from hvd_dqn.distributed.cores import usable_cores; print(usable_cores())'
    cores=$(PYTHONPATH=$root "$root/.venv/bin/python" -c "$count")
    ranks=$((cores < 4 ? cores : 4))
fi

# horovodrun starts the `python` and the `mpirun` that come first in PATH.
export PATH="$root/.venv/bin:$PATH"
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

# horovodrun itself imports TensorFlow, which reports CUDA libraries that it does not find on a machine without GPUs.
if ! gpus_wanted "$@"; then export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"; fi
if ((EUID == 0)); then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

check_named "${named[@]}"
keep_only "${named[@]}"
trap 'ask_to_stop "$controller"' INT TERM HUP USR1

# Rank 0 writes here which run directory it uses and how the job ended: Gloo's launcher turns every exit code into 1.
HVD_DQN_STATUS_FILE=$(mktemp "${TMPDIR:-/tmp}/hvd_dqn-status-XXXXXX")
export HVD_DQN_STATUS_FILE
trap 'rm -f "$HVD_DQN_STATUS_FILE"' EXIT

status() {
    sed -n "s/^$1=//p" "$HVD_DQN_STATUS_FILE" | tail -n 1
}

# Starts the job and waits for its end; sets `code`.
run() {
    local command=(horovodrun "--$controller" -np "$ranks")
    # horovodrun asks mpirun to prefix each line with the rank. Rank 0 alone reports; what others print names its rank.
    if [[ $controller == mpi ]]; then command+=(--mpi-args="-mca orte_tag_output 0"); fi
    command+=(python "$root/train.py" "$@")
    echo "${command[*]}" >&2
    code=0
    run_and_wait "${command[@]}" || code=$?
}

run "$@"
for ((restart = 1; restart <= restarts; restart++)); do
    ended=$(status exit_code)
    if ((requests > 0 || ${ended:-$code} == 0)) || [[ -n $ended && $ended != 1 ]]; then
        break
    fi
    directory=$(status run_directory)
    echo "launch/local.sh: a rank died (exit code $code); restart $restart of $restarts${directory:+ from $directory}" >&2
    run "$@" ${directory:+--resume "$directory"}
done
ended=$(status exit_code)
exit "${ended:-$code}"
