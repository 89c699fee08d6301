#!/usr/bin/env bash
# What the SkyPilot task runs on each of its machines: the first one starts all ranks by ssh, the others wait for it.
set -euo pipefail
((SKYPILOT_NODE_RANK == 0)) || exit 0

fail() {
    printf 'skypilot_run.sh: %s\n' "$@" >&2
    exit 2
}

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
[[ ${CHECKPOINTS:-} == ?*://?* ]] || fail "CHECKPOINTS=${CHECKPOINTS:-}: give a bucket, e.g. --env CHECKPOINTS=s3://BUCKET"
[[ ${RUN:-} =~ ^[A-Za-z0-9._-]+$ ]] || fail "RUN=${RUN:-}: give the run a name of letters, digits, dots and dashes"
ranks=${SKYPILOT_NUM_GPUS_PER_NODE:-0}
((ranks > 0)) || ranks=${RANKS_PER_NODE:-1}
hosts="${SKYPILOT_NODE_IPS//$'\n'/:$ranks,}:$ranks"
read -ra options <<<"${OPTIONS:-}"
# What says where buckets are, and is no secret: credentials come from the machine's identity, or from files.
known=()
for name in AWS_REGION AWS_ENDPOINT_URL GOOGLE_CLOUD_PROJECT AZURE_STORAGE_ACCOUNT_NAME; do
    if [[ -n ${!name:-} ]]; then known+=(-x "$name"); fi
done
exec "$root/launch/hosts.sh" --mpi -H "$hosts" "${known[@]}" -- "${options[@]}" --name "$RUN" --progress plain \
    --checkpoint-path "${CHECKPOINTS%/}/$RUN" --resume auto
