"""The ranks of a job and their collectives: the real ones over Horovod, and the null object of a single process."""

from __future__ import annotations

import json
import os
from typing import Any, Protocol

import numpy as np
import tensorflow as tf


class Ranks(Protocol):
    """What the job asks of its ranks. Every method below is a collective: all ranks call it, in the same order."""

    rank: int
    size: int
    local_rank: int
    controller: str

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a float32 vector over the ranks; may be called inside a tf.function."""

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""

    def broadcast(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns rank 0's tensor on all ranks."""

    def gather_json(self, value: Any) -> list[Any]:
        """Returns every rank's JSON-ready value, in the order of ranks."""

    def broadcast_json(self, value: Any) -> Any:
        """Returns rank 0's JSON-ready value on all ranks."""

    def barrier(self) -> None:
        """Returns when all ranks have come here."""

    def shutdown(self) -> None:
        """Leaves the job; nothing may be called after."""

    def abort(self, code: int) -> None:
        """Ends this process at once, and through its launcher the whole job (not a collective)."""


class SingleRank:
    """The job of one process: every collective is the identity and costs nothing."""

    rank = 0
    size = 1
    local_rank = 0
    controller = "none (one rank)"

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Returns the vector."""
        return vector

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Returns the values."""
        return values

    def broadcast(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns the tensor."""
        return tensor

    def gather_json(self, value: Any) -> list[Any]:
        """Returns the one value in a list, as it would look after the journey."""
        return [json.loads(json.dumps(value))]

    def broadcast_json(self, value: Any) -> Any:
        """Returns the value, as it would look after the journey."""
        return json.loads(json.dumps(value))

    def barrier(self) -> None:
        """Does nothing."""

    def shutdown(self) -> None:
        """Does nothing."""

    def abort(self, code: int) -> None:
        """Ends the process at once."""
        os._exit(code)


class HorovodRanks:
    """The ranks of a Horovod job.

    Collectives stay unnamed: Horovod's elastic wrapper recognises a lost peer by the operation's default name.
    """

    def __init__(self) -> None:
        """Initialises Horovod; a collective."""
        import horovod.tensorflow as hvd

        hvd.init()  # COLLECTIVE
        self._hvd = hvd
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()
        self.controller = "MPI" if hvd.mpi_enabled() else "Gloo"

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a vector over the ranks by ring-allreduce."""
        return self._hvd.allreduce(vector, op=self._hvd.Sum)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""
        return self._hvd.allreduce(tf.constant(values), op=self._hvd.Sum).numpy()

    def broadcast(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns rank 0's tensor."""
        return self._hvd.broadcast(tensor, root_rank=0)

    def gather_json(self, value: Any) -> list[Any]:
        """Gathers JSON texts as bytes; no pickle crosses the network."""
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = self._hvd.allgather(tf.constant([len(text)])).numpy()
        joined = self._hvd.allgather(tf.constant(text)).numpy()
        parts = np.split(joined, np.cumsum(sizes)[:-1])
        return [json.loads(part.tobytes()) for part in parts]

    def broadcast_json(self, value: Any) -> Any:
        """Sends rank 0's value to all."""
        text = np.frombuffer(json.dumps(value if self.rank == 0 else None).encode(), np.uint8)
        size = int(self._hvd.broadcast(tf.constant(len(text)), root_rank=0).numpy())
        padded = np.zeros(size, np.uint8)
        if self.rank == 0:
            padded[:] = text
        return json.loads(self._hvd.broadcast(tf.constant(padded), root_rank=0).numpy().tobytes())

    def barrier(self) -> None:
        """Waits for all ranks; Horovod's TensorFlow binding has no barrier, and an allreduce is one."""
        self.sum(np.zeros(1, np.float32))

    def shutdown(self) -> None:
        """Leaves Horovod."""
        self._hvd.shutdown()

    def abort(self, code: int) -> None:
        """Ends the job: through MPI where MPI runs it, else by leaving without a word, which the launcher sees."""
        if self.controller == "MPI":
            from mpi4py import MPI

            MPI.COMM_WORLD.Abort(code)
        os._exit(code)
