#!/usr/bin/env bash
# Runs the training job on this machine with the project's own environment; no activation, works from any folder.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/local.sh [-np N] [--mpi | --gloo] [--restarts N] [--] [options of train.py]

  -np N          ranks to start (default: the number of cores, at most 4)
  --mpi          ranks talk through Open MPI (default)
  --gloo         ranks talk through Gloo
  --restarts N   where a rank dies, go on from the last checkpoint, up to N times (default: 0); a mistake (exit code 2)
                 and a request to stop (75) are no such death

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

# Prints the process that passes signals on to the ranks. Under MPI horovodrun turns into `sh -c mpirun`: a signal to
# that shell is lost (SIGINT) or leaves mpirun without a parent (SIGTERM), so it has to go to the shell's child.
# shellcheck disable=SC2329 # `stop` calls it
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
# shellcheck disable=SC2329 # the trap calls it
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
    # With job control the launcher has a process group of its own: Ctrl-C reaches it once, through `stop`.
    set -m
    "${command[@]}" </dev/null &
    job=$!
    while :; do
        code=0
        wait "$job" || code=$? # a signal to this script ends `wait` early, too
        kill -0 "$job" 2>/dev/null || break
    done
    # The last `wait` may have been cut short by the signal; this one returns the job's own exit code.
    if ((requests > 0)); then
        code=0
        wait "$job" || code=$?
    fi
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
