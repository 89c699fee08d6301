#!/usr/bin/env bash
# What a worker does before it is taken away: asks one of its ranks to save, which makes all ranks of the job save and
# stop, and waits until those here have ended, for as long as a spot machine's notice lasts at least.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
seconds=${SAVE_SECONDS:-20}

# Prints the ids of this container's ranks.
ranks() {
    local folder words
    for folder in /proc/[0-9]*; do
        { mapfile -d '' -t words <"$folder/cmdline"; } 2>/dev/null || continue
        if [[ ${words[1]:-} == "$root/train.py" ]]; then echo "${folder#/proc/}"; fi
    done
}

first=$(ranks | head -n 1)
[[ -n $first ]] || exit 0
kill -s USR1 "$first"
for ((waited = 0; waited < seconds * 10; waited++)); do
    [[ -n $(ranks) ]] || exit 0
    sleep 0.1
done
echo "save.sh: the ranks still run after $seconds s" >&2
exit 1
