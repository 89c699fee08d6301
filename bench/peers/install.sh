#!/usr/bin/env bash
# Makes the peers' environment for bench/throughput.py.
#
#   bench/peers/install.sh [UV]     UV: a uv to install with, e.g. .tools/uv-0.13.9/bin/uv; without one, venv and pip
#
# PYTHON=/path/to/python3.11 chooses the interpreter, PEERS=/some/folder the place (.bench/peers below the repository).
# About 6 GB, most of it CUDA libraries that PyTorch's wheel on PyPI will not start without.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
peers=${PEERS:-$root/.bench/peers}
python=${PYTHON:-python3.11}

if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
  echo "error: $python is no Python 3.11, for which requirements.txt was resolved: name one with PYTHON=" >&2
  exit 1
fi

# --no-deps: the file lists every package, and some of them exclude one another's versions on paper.
if [ $# -ge 1 ]; then
  "$1" venv --quiet --clear --python "$python" "$peers"
  "$1" pip install --python "$peers/bin/python" --no-deps -r "$here/requirements.txt"
else
  "$python" -m venv --clear "$peers"
  "$peers/bin/python" -m pip install --no-deps --ignore-requires-python -r "$here/requirements.txt"
fi
echo "the peers are in $peers"
