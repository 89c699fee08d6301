#!/usr/bin/env bash
# Runs the training job on this machine with the project's own environment; no activation, works from any folder.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/local.sh [-np N] [--mpi | --gloo] [-x NAME]... [--] [options of train.py]

  -np N    ranks to start (default: the number of cores, at most 4)
  --mpi    ranks talk through Open MPI (default)
  --gloo   ranks talk through Gloo
  -x NAME  let the ranks have this environment variable as well (repeat it for more): they get PATH, HOME, locale,
           PYTHON*, HOROVOD_*, OMPI_*, NCCL_*, TF_* and the like, and under Gloo their values stand on command lines

Everything else goes to train.py; put -- before it where an option has one of the names above.

Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 to this script makes the job save and stop; a second Ctrl-C or SIGTERM ends it at
once. (Gloo's launcher gives the ranks 5 seconds to save, Open MPI's as long as they need.)

examples:
  launch/local.sh                                   two to four ranks, train.py's defaults
  launch/local.sh -np 2 --preset lunarlander        a preset on two ranks
  launch/local.sh --gloo -np 4 -- --seed 7
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
named=()
while (($#)); do
    case $1 in
        -np | --np | -n)
            (($# > 1)) || fail "$1 needs a number, e.g. $1 2"
            ranks=$2
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
keep_only "${named[@]}"

command=(horovodrun "--$controller" -np "$ranks" python "$root/train.py" "$@")
echo "${command[*]}" >&2

trap 'ask_to_stop "$controller"' INT TERM HUP USR1
code=0
run_and_wait "${command[@]}" || code=$?
exit "$code"
