"""Whether ranks can sum a vector, and how fast: a check of hosts, containers and networks before a job, or beside one.

    mpirun -np 2 python -m hvd_dqn.distributed.check               over Horovod
    mpirun -np 2 python -m hvd_dqn.distributed.check auto          as a job on these ranks would

Exit code 0 if the sums are right on all ranks. It computes on the CPU, so that it disturbs no GPU.
"""

from __future__ import annotations

import sys
import time

from hvd_dqn.distributed.launcher import check_transport, read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR, UserError

_LENGTHS = (1, 17_000, 1_000_000)
_STALL_TIMEOUT_SECONDS = 20.0


def main(arguments: list[str]) -> int:
    """Sums on all ranks and returns the exit code."""
    launch = read_launch()
    transport = arguments[0] if arguments else "horovod"
    try:
        if len(arguments) > 1 or transport not in ("auto", "shared-memory", "tcp", "mpi", "horovod"):
            raise UserError(f"{' '.join(arguments)}: give auto, shared-memory, tcp, mpi or horovod")
        check_transport(launch, transport)
    except UserError as error:
        print(f"hvd_dqn.distributed.check: {error}", file=sys.stderr, flush=True)
        return EXIT_USER_ERROR
    threads = prepare_environment(launch, 1, _STALL_TIMEOUT_SECONDS, bind_to_cores=False)
    communicator = start(launch, threads, transport, "cpu", timeline=False).communicator  # COLLECTIVE

    import numpy as np

    lines, right = [], True
    for length in _LENGTHS:
        values = np.arange(length, dtype=np.float32) % 64 + communicator.rank
        communicator.sum(values)  # COLLECTIVE: the first of a length may set something up
        start_time = time.perf_counter()
        total = communicator.sum(values)  # COLLECTIVE
        lines.append(f"  {4 * length:>9,} bytes in {1e3 * (time.perf_counter() - start_time):.2f} ms")
        expected = (
            communicator.size * (np.arange(length, dtype=np.float32) % 64)
            + communicator.size * (communicator.size - 1) // 2
        )
        right &= bool(np.array_equal(total, expected))
    wrong = [rank for rank, well in enumerate(communicator.gather_json(right)) if not well]  # COLLECTIVE
    if communicator.rank == 0:
        verdict = f"wrong sums on rank(s) {', '.join(map(str, wrong))}" if wrong else "the sums are right on all"
        carriers = f"controller {communicator.controller}, over {communicator.transport}"
        print(f"{communicator.size} rank(s), {carriers}: {verdict}", flush=True)
        print("\n".join(lines), flush=True)
    communicator.barrier()  # COLLECTIVE
    communicator.shutdown()
    return EXIT_FAILED if wrong else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
