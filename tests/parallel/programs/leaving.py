"""Rank 0 leaves the job at once after a barrier, while the others still have something to say to MPI.

leaving.py
"""

from __future__ import annotations

import time

from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment

LAUNCH = read_launch()
prepare_environment(LAUNCH, threads_per_rank=1, stall_timeout_seconds=60.0)  # before TensorFlow is imported

from hvd_dqn.distributed.mpi import MPICommunicator  # noqa: E402


def main() -> None:
    """Runs on every rank."""
    communicator = MPICommunicator(LAUNCH.local_rank)
    communicator.start_horovod()
    communicator.barrier()
    if communicator.rank > 0:
        from mpi4py import MPI

        time.sleep(2.0)  # more than Horovod's threads take to hear of it
        assert not MPI.Is_finalized()
        assert MPI.COMM_SELF.allreduce(7) == 7
    communicator.shutdown()


if __name__ == "__main__":
    main()
