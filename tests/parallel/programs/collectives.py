"""Sends the same through all communicators that this launcher allows, and saves what comes out on each rank.

    collectives.py OUT_FOLDER

Each rank writes OUT_FOLDER/<name>-rank<r>.npz, for `Horovod`, and under an MPI launcher for `MPI` too, which sends by
mpi4py, and `MPI with Horovod`, which does not. niceness-rank<r>.json has how nice each thread is once Horovod runs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment

LAUNCH = read_launch()
prepare_environment(LAUNCH, threads_per_rank=1, stall_timeout_seconds=60.0)  # before TensorFlow is imported

import tensorflow as tf  # noqa: E402

from hvd_dqn.distributed.communicator import Communicator  # noqa: E402
from hvd_dqn.distributed.horovod import HorovodCommunicator  # noqa: E402
from hvd_dqn.distributed.mpi import Direct, MPICommunicator  # noqa: E402

LENGTH = 17_000
TIMES = 3


def results(communicator: Communicator, sums_in_graphs: bool = True) -> dict[str, np.ndarray]:
    """Returns what every collective gives on this rank."""
    rng = np.random.default_rng(communicator.rank)
    own = (rng.normal(size=LENGTH) * 10.0 ** rng.integers(-6, 6, size=LENGTH)).astype(np.float32)
    own[:2] = -0.0, 0.0

    @tf.function
    def in_a_graph(vector: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(
            lambda k, _: k < TIMES,
            lambda k, v: (k + 1, communicator.allreduce_in_graph(v) * 0.5),
            (tf.constant(0), vector),
            parallel_iterations=1,
        )[1]

    said = [
        communicator.gather_json({"rank": communicator.rank, "text": "ü" * communicator.rank}),
        communicator.broadcast_json([communicator.rank, "x"]),
    ]
    return {
        "sum": communicator.sum(own),
        "sum_of_doubles": communicator.sum(own.astype(np.float64)[::2]),
        "sum_of_a_square": communicator.sum(own[:9].reshape(3, 3).T),
        **({"graph": in_a_graph(tf.constant(own)).numpy()} if sums_in_graphs else {}),
        "broadcast_array": communicator.broadcast(own),
        "broadcast_nothing": communicator.broadcast(own[:0]),
        "broadcast_tensor": communicator.broadcast(tf.constant(own)).numpy(),
        "own_after_all": own,
        "exchanged": communicator.exchange(*_rows_for_all(communicator)),
        "exchanged_nothing": communicator.exchange(np.zeros((0, 3), np.uint8), [0] * communicator.size),
        "json": np.frombuffer(json.dumps(said).encode(), np.uint8),
    }


def _rows_for_all(communicator: Communicator) -> tuple[np.ndarray, list[int]]:
    """Returns rows that name this rank and the receiver, r + 2 s of them from rank r for rank s, and their numbers."""
    rank, counts = communicator.rank, [communicator.rank + 2 * other for other in range(communicator.size)]
    rows = [np.full((count, 3), [rank, other, 7], np.uint8) for other, count in enumerate(counts)]
    return np.concatenate(rows), counts


def main() -> None:
    """Runs on every rank."""
    folder = Path(sys.argv[1])

    def save(name: str, communicator: Communicator, **options: bool) -> None:
        np.savez(folder / f"{name}-rank{communicator.rank}.npz", **results(communicator, **options))

    if LAUNCH.under_mpi:
        mpi = MPICommunicator(LAUNCH.local_rank)
        save("MPI", mpi, sums_in_graphs=False)
        mpi.start_horovod()
        for method in ("sum", "broadcast", "gather", "exchange", "barrier"):  # two threads in Open MPI may deadlock
            setattr(Direct, method, None)
        threads = map(int, os.listdir("/proc/self/task"))
        niceness = [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads]
        (folder / f"niceness-rank{mpi.rank}.json").write_text(json.dumps(niceness))
        save("MPI with Horovod", mpi)
        mpi.barrier()
    horovod = HorovodCommunicator()
    save("Horovod", horovod)
    horovod.barrier()
    horovod.shutdown()


if __name__ == "__main__":
    main()
