"""Sends the same through all transports, and says on each rank what came out.

    transports.py OUT_FOLDER

Each rank writes OUT_FOLDER/<transport>-rank<r>.npz for `MPI`, `Horovod`, `TCP` and `shared memory`, for `hosts`: TCP
between pairs of ranks that are taken for hosts, and for `fallback` and `unconnected`: MPI in the place of shared memory
and of connections that cannot be had. And OUT_FOLDER/memory-<kind>-rank<r>.npz for a learner's memory.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment
from hvd_dqn.errors import UserError

prepare_environment(read_launch(), threads_per_rank=1, stall_timeout_seconds=60.0)  # before TensorFlow is imported
os.environ["HOROVOD_GLOO_IFACE"] = "lo"
os.environ["HOROVOD_CYCLE_TIME"] = "5"  # the transports in turn: Horovod's thread neither sleeps nor spins

import tensorflow as tf  # noqa: E402

from hvd_dqn.distributed import shared_file  # noqa: E402
from hvd_dqn.distributed.communicator import Communicator  # noqa: E402
from hvd_dqn.distributed.horovod import HorovodCommunicator  # noqa: E402
from hvd_dqn.distributed.mpi import MPICommunicator  # noqa: E402
from hvd_dqn.distributed.shared_memory import SharedMemoryCommunicator  # noqa: E402
from hvd_dqn.distributed.tcp_ranks import TCPCommunicator  # noqa: E402

LENGTH = 17_000
LONG_LENGTH = 200_000
"""In shared memory a sum of so many takes another way."""
ROUNDS = 3
MANY_ROUNDS = 50


def results(communicator: Communicator) -> dict[str, np.ndarray]:
    """Returns what every collective gives on this rank."""
    rng = np.random.default_rng(communicator.rank)
    own = (rng.normal(size=LENGTH) * 10.0 ** rng.integers(-6, 6, size=LENGTH)).astype(np.float32)
    own[:2] = -0.0, 0.0

    def produce(k: int, total: np.ndarray) -> np.ndarray:
        return own * np.float32(k + 1) + np.float32(0.5) * total

    @tf.function
    def in_a_graph(vector: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(
            lambda k, _: k < ROUNDS,
            lambda k, v: (k + 1, communicator.allreduce_sum(v) * 0.5),
            (tf.constant(0), vector),
            parallel_iterations=1,
        )[1]

    def alternating(length: int) -> np.ndarray:
        """Sums and broadcasts in turn, each time other numbers: a rank that is early must not disturb a late one."""
        vector = np.resize(own, length)
        for k in range(MANY_ROUNDS):
            weights = [k % 7 + rank + 1 for rank in range(communicator.size)]
            total = communicator.sum(vector * np.float32(weights[communicator.rank]))
            vector = communicator.broadcast(total * np.float32(1 / sum(weights)) + np.float32(communicator.rank))
        return vector

    run = communicator.make_rounds(LENGTH, produce)
    said = [
        communicator.gather_json({"rank": communicator.rank, "text": "ü" * communicator.rank}),
        communicator.broadcast_json([communicator.rank, "x"]),
    ]
    return {
        "sum": communicator.sum(own),
        "long_sum": communicator.sum(np.resize(own, LONG_LENGTH)),
        "sum_of_doubles": communicator.sum(own.astype(np.float64)[::2]),
        "rounds": run(ROUNDS).copy(),
        "no_rounds_but_one": run(1).copy(),
        "rounds_of_tensorflow": communicator.make_rounds(LENGTH, produce, True)(ROUNDS).copy(),
        "graph": in_a_graph(tf.constant(own)).numpy(),
        "broadcast_array": communicator.broadcast(own),
        "sum_of_a_square": communicator.sum(own[:9].reshape(3, 3).T),
        "broadcast_nothing": communicator.broadcast(own[:0]),
        "broadcast_tensor": communicator.broadcast(tf.constant(own)).numpy(),
        "own_after_all": own,
        "alternating": alternating(LENGTH),
        "long_alternating": alternating(LONG_LENGTH),
        "json": np.frombuffer(json.dumps(said).encode(), np.uint8),
    }


def save_memory(name: str, communicator: Communicator, parameters: int) -> None:
    """Saves what a learner's memory holds before and after each rank has written its part, and which part that was."""
    memory = communicator.take_memory(np.arange(parameters, dtype=np.float32), 2, parameters + 8)
    parts = communicator.gather_json([memory.part.start, memory.part.stop])
    begun = np.array(memory.state)
    communicator.barrier()
    for vector in memory.state:
        vector[memory.part] = communicator.rank + 1
    communicator.barrier()
    held = {"begun": begun, "state": np.array(memory.state), "parts": np.array(parts)}
    np.savez(Path(sys.argv[1]) / f"memory-{name}-rank{communicator.rank}.npz", **held)


def main() -> None:
    """Runs on every rank."""
    over_mpi, over_horovod = MPICommunicator(), HorovodCommunicator()
    shared, fallback = (SharedMemoryCommunicator(over_mpi, required=required) for required in (True, False))
    over_tcp, unconnected = (TCPCommunicator(over_mpi, "one", required=required) for required in (True, False))
    over_hosts = TCPCommunicator(over_mpi, f"host {over_mpi.rank // 2}", required=True)
    all_ranks: dict[str, Communicator] = {
        communicator.transport: communicator for communicator in (over_mpi, over_horovod, over_tcp, shared)
    }
    shared.sum(np.zeros(400_009, np.float32))  # later there is room for this sum, but not for its learner's state
    all_ranks |= {"hosts": over_hosts, "fallback": fallback, "unconnected": unconnected}
    for name, communicator in all_ranks.items():
        if name == "fallback":
            shared_file._FOLDER = "/no/such/folder"
            os.environ["HOROVOD_GLOO_IFACE"] = "nowhere7"
        communicator.barrier()
        np.savez(Path(sys.argv[1]) / f"{name}-rank{communicator.rank}.npz", **results(communicator))
    assert fallback.transport.startswith("MPI (rank 0: no shared memory: "), fallback.transport
    assert unconnected.transport.startswith("MPI (the network interface nowhere7 "), unconnected.transport
    with pytest.raises(UserError, match="no shared memory"):
        SharedMemoryCommunicator(over_mpi, required=True).sum(np.zeros(5, np.float32))
    with pytest.raises(UserError, match="nowhere7"):
        TCPCommunicator(over_mpi, "one", required=True).sum(np.zeros(5, np.float32))
    save_memory("crowded", shared, 400_001)
    shared_file._FOLDER = "/dev/shm"
    for name, communicator, parameters in (
        ("common", shared, 300_001),
        ("short", shared, 1000),
        ("MPI", over_mpi, 300_001),
    ):
        save_memory(name, communicator, parameters)
    over_tcp.shutdown()  # and Horovod


if __name__ == "__main__":
    main()
