"""One rank of bench/allreduce.py: times a sum over the ranks of a vector, alone and between pieces of work.

    allreduce_rank.py KIND FLOATS ROUNDS REPETITIONS

KIND is bare (mpi4py alone), rounds, graph (this project's two ways over the transport of the environment variable
TRANSPORT: shared-memory, tcp, mpi or horovod). Rank 0 prints one JSON line: microseconds per round of each repetition,
without and with work, the work left out; a graph is measured without work only. With the environment variable
SEVERAL_HOSTS MPI is set up as between hosts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[pool] = "1"
os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")

import numpy as np  # noqa: E402

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


def ours() -> tuple[int, Callable[[int, Callable[[], None]], None]]:
    """Returns the rank and a loop over this project's ranks."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from hvd_dqn.distributed.communicator import Communicator
    from hvd_dqn.distributed.horovod import HorovodCommunicator
    from hvd_dqn.distributed.mpi import MPICommunicator
    from hvd_dqn.distributed.runtime import prepare_mpi
    from hvd_dqn.distributed.shared_memory import SharedMemoryCommunicator
    from hvd_dqn.distributed.tcp_ranks import TCPCommunicator

    prepare_mpi(one_host=os.environ.get("SEVERAL_HOSTS") is None)
    transport, under_gloo = os.environ["TRANSPORT"], "HOROVOD_RANK" in os.environ
    communicator: Communicator = HorovodCommunicator() if transport == "horovod" or under_gloo else MPICommunicator()
    if transport == "shared-memory":
        communicator = SharedMemoryCommunicator(communicator, required=True)
    elif transport == "tcp":
        communicator = TCPCommunicator(communicator, "one", required=True)
    own, doing = np.ones(FLOATS, np.float32), [work]

    def produce(k: int, total: np.ndarray) -> np.ndarray:
        doing[0]()
        return own

    rounds_of = communicator.make_rounds(FLOATS, produce)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32), tf.TensorSpec([FLOATS], tf.float32)])
    def graph(rounds: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        # Each round's vector is new memory, as a learner's gradient is.
        step = lambda k, total: (k + 1, communicator.allreduce_sum(vector + tf.cast(k, tf.float32)))  # noqa: E731
        return tf.while_loop(lambda k, _: k < rounds, step, (tf.constant(0), vector), parallel_iterations=1)[1]

    def run(rounds: int, between: Callable[[], None]) -> None:
        doing[0] = between
        if KIND == "rounds":
            rounds_of(rounds)
        else:
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
    rank, run = bare() if KIND == "bare" else ours()
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
