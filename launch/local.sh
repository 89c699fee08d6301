#!/usr/bin/env bash
# Runs the training job on this machine with the project's own environment; no activation, works from any folder.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/local.sh [-np N] [--mpi | --gloo] [--] [options of train.py]

  -np N    ranks to start (default: the number of cores, at most 4)
  --mpi    ranks talk through Open MPI (default)
  --gloo   ranks talk through Gloo

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

# Prints the process that passes signals on to the ranks. Under MPI horovodrun turns into `sh -c mpirun`: a signal to
# that shell is lost (SIGINT) or leaves mpirun without a parent (SIGTERM), so it has to go to the shell's child.
launcher() {
    local name children
    name=$(cat "/proc/$job/comm" 2>/dev/null) || return 1
    if [[ $name == sh || $name == dash || $name == bash ]]; then
        read -r children _ <"/proc/$job/task/$job/children" || true # no newline at its end: read says 1
        [[ -n $children ]] && echo "$children"
    else
        echo "$job"
    fi
}

requests=0
stop() {
    local pid signal=TERM
    requests=$((requests + 1))
    pid=$(launcher) || return 0
    # mpirun passes SIGUSR1 on and waits; after SIGTERM it kills the ranks within 2 seconds, saved or not.
    if ((requests == 1)) && [[ $controller == mpi && $pid != "$job" ]]; then
        signal=USR1
    fi
    kill -s "$signal" "$pid" 2>/dev/null || true
    if ((requests == 1)); then
        echo "launch/local.sh: asked to stop, the job saves first; ask again to end it at once" >&2 || true
    fi
}
trap stop INT TERM HUP USR1

command=(horovodrun "--$controller" -np "$ranks" python "$root/train.py" "$@")
echo "${command[*]}" >&2

# With job control the launcher has a process group of its own: Ctrl-C reaches it once, through `stop`.
set -m
"${command[@]}" </dev/null &
job=$!
while :; do
    code=0
    wait "$job" || code=$? # a signal to this script ends `wait` early, too
    if ! kill -0 "$job" 2>/dev/null; then
        # The last `wait` may have been cut short by the signal; this one returns the job's own exit code.
        if ((requests > 0)); then
            code=0
            wait "$job" || code=$?
        fi
        exit "$code"
    fi
done
