"""The ranks of a Horovod job under MPI on CPUs, with MPI as the carrier of what lies in host memory.

Horovod's background thread agrees with its peers on which tensors are ready before it calls MPI_Allreduce: its
answer to frameworks that produce gradients in any order. This job has one vector in flight, at the same place on all
ranks, so it calls MPI_Allreduce itself: the same sum, bit for bit, many times sooner (docs/performance.md).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.communicator import Produce, Rounds, Values, plain_rounds
from hvd_dqn.distributed.horovod import HorovodCommunicator
from hvd_dqn.native.library import aligned_zeros


def on_any_rank(flag: bool) -> bool:
    """Returns whether a flag is set on any rank of an MPI job; a collective, called before Horovod is started.

    It initialises MPI, which mpi4py then ends whoever carries the gradients; see `MPICommunicator`.
    """
    from mpi4py import MPI

    found = np.zeros(1, np.int32)
    MPI.COMM_WORLD.Allreduce(np.array([flag], np.int32), found, MPI.MAX)  # COLLECTIVE
    return bool(found[0])


class MPICommunicator(HorovodCommunicator):
    """A Horovod job whose background thread sleeps; a communicator of its own keeps the two apart."""

    transport = "MPI"

    def __init__(self) -> None:
        """Initialises MPI and Horovod; a collective."""
        # First: who initialises MPI ends it, and Horovod would as soon as one rank has left, under the others' feet.
        from mpi4py import MPI

        super().__init__()  # COLLECTIVE
        self._comm = MPI.COMM_WORLD.Dup()  # COLLECTIVE

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a vector over the ranks; a step outside the graph, but not outside the call."""
        total = aligned_zeros(vector.shape[0])

        def exchange(values: np.ndarray) -> np.ndarray:
            own_result = np.may_share_memory(values, total)  # TensorFlow may compute in the memory that it was given
            self._comm.Allreduce(values.copy() if own_result else values, total)
            return total

        return tf.ensure_shape(tf.numpy_function(exchange, [vector], vector.dtype), vector.shape)

    def make_rounds(self, length: int, produce: Produce, calls_tensorflow: bool = False) -> Rounds:
        """Returns a plain loop that sums into one and the same array."""
        total = np.empty(length, np.float32)

        def exchange(vector: np.ndarray) -> np.ndarray:
            self._comm.Allreduce(vector, total)
            return total

        return plain_rounds(length, produce, exchange)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""
        total = np.empty_like(values, order="C")
        self._comm.Allreduce(np.ascontiguousarray(values), total)
        return total

    def broadcast(self, values: Values) -> Values:
        """Sends rank 0's tensor or array to all."""
        sent = np.array(values, order="C")
        self._comm.Bcast(sent)
        return sent if isinstance(values, np.ndarray) else tf.convert_to_tensor(sent)

    def _gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns every rank's uint8 array [N_r], in the order of ranks."""
        sizes = np.empty(self.size, np.int64)
        self._comm.Allgather(np.array(len(values), np.int64), sizes)
        joined = np.empty(sizes.sum(), np.uint8)
        self._comm.Allgatherv(values, [joined, sizes])
        return np.split(joined, np.cumsum(sizes)[:-1])
