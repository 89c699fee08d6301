"""Says which cores each rank has bound itself to.

    placement.py OUT_FOLDER

Each rank writes OUT_FOLDER/rank<r>.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment

launch = read_launch()
prepare_environment(launch, threads_per_rank=0, stall_timeout_seconds=0.0)
said = {"cores": sorted(os.sched_getaffinity(0)), "threads": os.environ["OMP_NUM_THREADS"]}
Path(sys.argv[1], f"rank{launch.rank}.json").write_text(json.dumps(said))
if launch.under_mpi:
    from mpi4py import MPI  # noqa: F401 - mpirun wants to see MPI start and end
