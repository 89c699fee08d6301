"""One rank of bench/allreduce.py: times a sum over the ranks of a vector, alone and between pieces of work.

    allreduce_rank.py KIND FLOATS ROUNDS REPETITIONS

KIND is bare (MPI alone, as the native learner calls it) or graph (Horovod in a graph, as the general learner does).
Rank 0 prints one JSON line: microseconds per round of each repetition, without and with work, the work left out; a
graph is measured without work only. With the environment variable SEVERAL_HOSTS MPI is set up as between hosts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable

for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[pool] = "1"

import numpy as np  # noqa: E402

from hvd_dqn.distributed.cores import usable_cores  # noqa: E402
from hvd_dqn.distributed.launcher import read_launch  # noqa: E402
from hvd_dqn.distributed.runtime import prepare_mpi  # noqa: E402

LAUNCH = read_launch()
if "SEVERAL_HOSTS" in os.environ:
    LAUNCH = dataclasses.replace(LAUNCH, local_size=1)
prepare_mpi(LAUNCH, usable_cores())

KIND, FLOATS, ROUNDS, REPETITIONS = sys.argv[1], *map(int, sys.argv[2:5])
MATRIX = np.ones((128, 128), np.float32)


def work() -> None:
    """Multiplies small matrices for about a hundred microseconds, as a learner step does."""
    for _ in range(3):
        MATRIX @ MATRIX


def bare() -> tuple[int, Callable[[int, Callable[[], None]], None]]:
    """Returns the rank and a loop over mpi4py's Allreduce, in a process without Horovod."""
    from mpi4py import MPI

    comm, own, total = MPI.COMM_WORLD.Dup(), np.ones(FLOATS, np.float32), np.empty(FLOATS, np.float32)

    def run(rounds: int, between: Callable[[], None]) -> None:
        for _ in range(rounds):
            between()
            comm.Allreduce(own, total)

    return comm.Get_rank(), run


def in_a_graph() -> tuple[int, Callable[[int, Callable[[], None]], None]]:
    """Returns the rank and a loop of Horovod's sums inside a graph."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from hvd_dqn.distributed.launcher import read_launch
    from hvd_dqn.distributed.runtime import join

    communicator = join(read_launch(), None)
    communicator.start_horovod()

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32), tf.TensorSpec([FLOATS], tf.float32)])
    def graph(rounds: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        # Each round's vector is new memory, as a learner's gradient is.
        step = lambda k, total: (k + 1, communicator.allreduce_in_graph(vector + tf.cast(k, tf.float32)))  # noqa: E731
        return tf.while_loop(lambda k, _: k < rounds, step, (tf.constant(0), vector), parallel_iterations=1)[1]

    def run(rounds: int, between: Callable[[], None]) -> None:
        del between
        graph(tf.constant(rounds), tf.zeros(FLOATS)).numpy()

    return communicator.rank, run


def microseconds(run: Callable[[int, Callable[[], None]], None], between: Callable[[], None]) -> float:
    """Returns the time of a round."""
    run(3, between)
    start = time.perf_counter()
    run(ROUNDS, between)
    return (time.perf_counter() - start) / ROUNDS * 1e6


def main() -> None:
    """Runs on every rank."""
    rank, run = bare() if KIND == "bare" else in_a_graph()
    alone, beside = [], []
    for _ in range(REPETITIONS):
        alone.append(microseconds(run, lambda: None))
        if KIND != "graph":
            start = time.perf_counter()
            for _ in range(ROUNDS):
                work()
            pure = (time.perf_counter() - start) / ROUNDS * 1e6
            beside.append(microseconds(run, work) - pure)
    if rank == 0:
        print(json.dumps({"alone": alone, "with_work": beside}), flush=True)
    os._exit(0) if KIND == "bare" else None


if __name__ == "__main__":
    main()
