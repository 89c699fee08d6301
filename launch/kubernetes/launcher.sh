#!/usr/bin/env bash
# The launcher of the MPIJob: waits for all workers, runs the job on all their slots, and runs it again whenever it ended
# with a newer checkpoint than before. A worker that is taken away thus costs what came after the last checkpoint.
#   launcher.sh OPTIONS_OF_TRAIN.PY --name NAME
# The operator names the workers in a host file and ends this script with SIGTERM, upon which the ranks save and stop.
set -euo pipefail

fail() {
    printf 'launcher.sh: %s\n' "$@" >&2
    exit 2
}

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"
hostfile=${OMPI_MCA_orte_default_hostfile:-/etc/mpi/hostfile}
port=${SSH_PORT:-2222}
python="$root/.venv/bin/python"
[[ -r $hostfile ]] || fail "$hostfile: no such host file; this script is for the launcher of an MPIJob"

arguments=("$@" --resume auto --progress plain)

# Prints the env steps of the run's newest checkpoint, 0 if it has none; a mistake in the arguments ends the job here.
checkpoint() {
    "$python" -m hvd_dqn.cli.newest_checkpoint "${arguments[@]}"
}

answers() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1" && read -r -t 2 -u 3 line && [[ $line == SSH-* ]]' "$1" "$port" 2>/dev/null
}

# Spot capacity may be hours away: what ends the waiting is the job's own deadline, or SIGTERM.
wait_for_workers() {
    local host rounds=0
    while read -r host _; do
        until answers "$host"; do
            ((requests == 0)) || return 0
            if ((rounds++ % 30 == 0)); then echo "launcher.sh: waiting for $host"; fi
            sleep 1
        done
    done <"$hostfile"
}

stop() {
    requests=$((requests + 1))
    # mpirun passes SIGUSR1 on and waits; after SIGTERM it kills the ranks within 2 seconds, saved or not.
    forward USR1
}
trap stop TERM INT

export OPAL_PREFIX="$root/.venv" # also for the ranks' MPI library: the wheel's mpirun sets it for itself alone
ssh_options="-p $port -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
ssh_options+=" -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
job=(
    "$root/.venv/bin/mpirun" --prefix "$root/.venv" --bind-to none --mca plm_rsh_args "$ssh_options"
    --mca oob_tcp_keepalive_time 10 --mca oob_tcp_keepalive_intvl 5 --mca oob_tcp_keepalive_probes 3
    -x OPAL_PREFIX "$python" "$root/train.py" "${arguments[@]}"
)

while :; do
    before=$(checkpoint)
    wait_for_workers
    ((requests == 0)) || exit 75
    code=0
    run_and_wait "${job[@]}" || code=$?
    # shellcheck disable=SC2034 # common.sh forwards signals there
    launcher_pid=
    ((code != 0)) || exit 0
    after=$(checkpoint)
    if ((requests > 0)); then
        echo "launcher.sh: asked to stop; the run is saved at env step $after"
        exit "$code"
    elif ((after <= before)); then
        # Kubernetes tries again, up to the job's backoffLimit.
        echo "launcher.sh: the job ended with code $code and no new checkpoint" >&2
        exit "$code"
    fi
    echo "launcher.sh: the job ended with code $code and continues from env step $after"
done
