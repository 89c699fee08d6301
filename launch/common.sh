# Sourced by the launch scripts: which environment variables ranks get, and how signals reach them through a launcher.
# shellcheck shell=bash

launcher_pid=
requests=0

# check_named NAME...: ends the script unless each is the name of an exported variable.
check_named() {
    local name
    for name in "$@"; do
        [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || fail "-x $name: give a variable's name; its value comes from this environment"
        compgen -e | grep -qx "$name" || fail "-x $name: no such environment variable here"
    done
}

# gpus_wanted OPTIONS_OF_TRAIN.PY...: whether the ranks will compute on GPUs.
gpus_wanted() {
    case " $* " in
        *" --device visible-gpu "* | *" --device=visible-gpu "*) return 0 ;;
        *" --device cpu "* | *" --device=cpu "*) return 1 ;;
    esac
    compgen -G '/dev/nvidia[0-9]*' >/dev/null
}

# keep_only NAME...: unsets all exported variables except the named ones and those that every job may need. horovodrun
# writes the whole environment on ssh's command line, which every user of the machine can read.
keep_only() {
    local name
    for name in $(compgen -e); do
        case " $* " in *" $name "*) continue ;; esac
        case $name in
            PATH | HOME | USER | LOGNAME | SHELL | LANG | LC_* | TERM | TMPDIR | LD_LIBRARY_PATH | PYTHON* | SSH_AUTH_SOCK) ;;
            HOROVOD_* | OMPI_* | NCCL_* | UCX_* | FI_* | GLOO_* | TF_* | XLA_* | CUDA_* | OMP_* | MKL_* | OPENBLAS_*) ;;
            SLURM_CONF | SLURM_JOB_ID | SLURM_JOB_END_TIME | HVD_DQN_HEARTBEAT_FILE) ;;
            *) unset "$name" ;;
        esac
    done
}

# Prints the process that passes signals on to the ranks. Under MPI horovodrun turns into `sh -c mpirun`: a signal to
# that shell is lost (SIGINT) or leaves mpirun without a parent (SIGTERM), so it has to go to the shell's child.
signal_target() {
    local name children
    name=$(cat "/proc/$launcher_pid/comm" 2>/dev/null) || return 1
    if [[ $name == sh || $name == dash || $name == bash ]]; then
        read -r children _ <"/proc/$launcher_pid/task/$launcher_pid/children" || true # no newline at its end: read says 1
        [[ -n $children ]] && echo "$children"
    else
        echo "$launcher_pid"
    fi
}

# forward SIGNAL: sends it to the launcher, if that runs.
forward() {
    local pid
    if [[ -n $launcher_pid ]] && pid=$(signal_target); then
        kill -s "$1" "$pid" 2>/dev/null || true
    fi
}

# ask_to_stop mpi|gloo: makes horovodrun's ranks save and stop, at the second call at once.
ask_to_stop() {
    local pid signal=TERM
    requests=$((requests + 1))
    pid=$(signal_target) || return 0
    # mpirun passes SIGUSR1 on and waits; after SIGTERM it kills the ranks within 2 seconds, saved or not.
    if ((requests == 1)) && [[ $1 == mpi && $pid != "$launcher_pid" ]]; then
        signal=USR1
    fi
    forward "$signal"
    if ((requests == 1)); then
        echo "launch/${0##*/}: the job saves and stops; a second signal ends it at once" >&2 || true
    fi
}

# run_and_wait COMMAND...: returns the command's exit code, however many signals this script gets meanwhile. With job
# control the launcher has a process group of its own: Ctrl-C reaches it once, through the script's trap.
run_and_wait() {
    local code
    set -m
    "$@" </dev/null &
    launcher_pid=$!
    while :; do
        code=0
        wait "$launcher_pid" || code=$? # a signal to this script ends `wait` early, too
        if ! kill -0 "$launcher_pid" 2>/dev/null; then
            # The last `wait` may have been cut short by a signal; the shell keeps the launcher's own code.
            if ((code > 128)); then
                code=0
                wait "$launcher_pid" || code=$?
            fi
            return "$code"
        fi
    done
}
