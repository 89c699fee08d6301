#!/usr/bin/env bash
# Runs the training job on several hosts over ssh, from one of them, with the project's own environment.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/hosts.sh -H HOST:RANKS,HOST:RANKS,... [options] [--] [options of train.py]

  -H LIST            hosts and the number of ranks on each; rank 0 runs on the first host
  --mpi              ranks communicate through Open MPI (default for CPUs)
  --gloo             ranks communicate through Gloo (default for GPUs: this host has NVIDIA GPUs and the options do not
                     say --device cpu, or they say --device visible-gpu); on CPUs slower than MPI
  --interface NAME   the network interface between the hosts, the same on all (default: found automatically)
  -x NAME            pass this environment variable to the ranks as well (may be repeated)

All hosts need this folder and the folder of the runs at the same path (a shared file system), and ssh without a
password from here to each. Ranks get PATH, HOME, locale, PYTHON*, HOROVOD_*, OMPI_*, NCCL_*, TF_* and similar
variables, and those named by -x. With Gloo their values are visible on ssh's command line: keep secrets in files.

Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 to this script makes the job save and stop. A second Ctrl-C or SIGTERM ends it at
once. (With Gloo the ranks have 5 seconds to save, with Open MPI as long as they need.)

examples:
  launch/hosts.sh -H node1:4,node2:4 -- --preset lunarlander
  launch/hosts.sh --gloo --interface ib0 -H node1:4,node2:4 -- --preset lunarlander
TEXT
}

fail() {
    printf 'launch/hosts.sh: %s\n' "$@" >&2
    exit 2
}

controller='' why='' hosts='' interface=''
named=()
while (($#)); do
    case $1 in
        -H | --hosts | --interface | -x)
            (($# > 1)) || fail "$1 needs a value"
            case $1 in
                --interface) interface=$2 ;;
                -x) named+=("$2") ;;
                *) hosts=$2 ;;
            esac
            shift 2
            ;;
        --mpi | --gloo)
            controller=${1#--} why="as $1 asks"
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
[[ -n $hosts ]] || fail "name the hosts: -H node1:4,node2:4"
ranks=0
IFS=, read -ra each <<<"$hosts"
for host in "${each[@]}"; do
    [[ $host =~ ^[A-Za-z0-9._-]+:([1-9][0-9]*)$ ]] || fail "-H $hosts: write each host as NAME:RANKS, such as node1:4"
    ranks=$((ranks + BASH_REMATCH[1]))
done

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
if [[ ! -x $root/.venv/bin/horovodrun ]]; then
    fail "$root/.venv is missing or incomplete" "create it with: make -C $root setup"
fi
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

if [[ -z $controller ]]; then
    if gpus_wanted "$@"; then
        controller=gloo why="the default for GPUs, whose gradients NCCL sums"
    else
        controller=mpi why="the default for CPUs"
    fi
fi
echo "launch/hosts.sh: the ranks use --$controller: $why" >&2
check_named "${named[@]}"
keep_only "${named[@]}"
export PATH="$root/.venv/bin:$PATH"
# horovodrun itself imports TensorFlow, which has much to say about GPUs that are not there.
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
if ((EUID == 0)); then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
options=("--$controller" -np "$ranks" -H "$hosts")
# A cut cable sends no signal: both ends of Open MPI's control connections must probe it, and before the ranks' own
# watchdog ends the job, since nothing is probed while sent data is unacknowledged.
export OMPI_MCA_plm_rsh_args="${OMPI_MCA_plm_rsh_args:--o ServerAliveInterval=5 -o ServerAliveCountMax=3}"
export OMPI_MCA_oob_tcp_keepalive_time="${OMPI_MCA_oob_tcp_keepalive_time:-5}"
export OMPI_MCA_oob_tcp_keepalive_intvl="${OMPI_MCA_oob_tcp_keepalive_intvl:-3}"
export OMPI_MCA_oob_tcp_keepalive_probes="${OMPI_MCA_oob_tcp_keepalive_probes:-3}"
if [[ $controller == mpi ]]; then
    # The other hosts do not find Open MPI's daemon and files in their own PATH.
    options+=("--mpi-args=--prefix $root/.venv")
    export OPAL_PREFIX="$root/.venv"
fi
if [[ -n $interface ]]; then
    options+=(--network-interfaces "$interface")
    # horovodrun does not pass the interface on to Open MPI's daemons.
    export OMPI_MCA_oob_tcp_if_include="$interface" OMPI_MCA_btl_tcp_if_include="$interface"
fi

command=(horovodrun "${options[@]}" "$root/.venv/bin/python" "$root/train.py" "$@")
echo "${command[*]}" >&2
trap 'ask_to_stop "$controller"' INT TERM HUP USR1
code=0
run_and_wait "${command[@]}" || code=$?
exit "$code"
