"""Whether ranks can sum a vector, and how fast: a check of hosts, containers and networks before or during a job.

    mpirun -np 2 python -m hvd_dqn.distributed.check

Exit code 0 if the sums are right on all ranks. It computes on the CPU, so that it disturbs no GPU.
"""

from __future__ import annotations

import sys
import time

from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import EXIT_DONE, EXIT_FAILED

_LENGTHS = (1, 17_000, 1_000_000)
_STALL_TIMEOUT_SECONDS = 20.0


def main() -> int:
    """Sums on all ranks and returns the exit code."""
    launch = read_launch()
    threads = prepare_environment(launch, 1, _STALL_TIMEOUT_SECONDS, bind_to_cores=False)
    communicator = start(launch, threads, "cpu", timeline=False).communicator  # COLLECTIVE

    import numpy as np
    import tensorflow as tf

    communicator.start_horovod()  # COLLECTIVE
    allreduce = tf.function(communicator.allreduce_in_graph)
    lines, right = [], True
    for length in _LENGTHS:
        values = np.arange(length, dtype=np.float32) % 64 + communicator.rank
        allreduce(tf.constant(values))  # COLLECTIVE: the first of a length is traced
        start_time = time.perf_counter()
        total = allreduce(tf.constant(values)).numpy()  # COLLECTIVE
        lines.append(f"  {4 * length:>9,} bytes in {1e3 * (time.perf_counter() - start_time):.2f} ms")
        expected = (
            communicator.size * (np.arange(length, dtype=np.float32) % 64)
            + communicator.size * (communicator.size - 1) // 2
        )
        right &= bool(np.array_equal(total, expected))
    wrong = [rank for rank, well in enumerate(communicator.gather_json(right)) if not well]  # COLLECTIVE
    if communicator.rank == 0:
        verdict = f"wrong sums on rank(s) {', '.join(map(str, wrong))}" if wrong else "the sums are right on all"
        print(f"{communicator.size} rank(s), controller {communicator.controller}: {verdict}", flush=True)
        print("\n".join(lines), flush=True)
    communicator.barrier()  # COLLECTIVE
    communicator.shutdown()
    return EXIT_FAILED if wrong else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
