"""Sums over the ranks of one host in memory that they share: no message, no other thread's latency.

MPI or Horovod carry all else; and the sums too once ranks are on several hosts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from hvd_dqn.errors import UserError
from hvd_dqn.maths.kernels import aligned_zeros
from hvd_dqn.maths.memory import LearnerMemory, own_memory
from hvd_dqn.parallel.ranks import CompiledExchange, Produce, Ranks, Rounds, Values, plain_rounds
from hvd_dqn.parallel.shared_vectors import SharedState, SharedVector


class SharedMemoryRanks:
    """The ranks of one host: float32 vectors through shared memory, all else as the carrier does it."""

    def __init__(self, carrier: Ranks, required: bool) -> None:
        """Takes over a job's ranks.

        Args:
          carrier: these ranks over MPI or Horovod.
          required: whether memory that cannot be had is an error; if not, the carrier does everything.
        """
        self._carrier, self._required = carrier, required
        self._vectors: dict[int, SharedVector | None] = {}
        self._states: list[SharedState] = []
        self.rank, self.size, self.local_rank = carrier.rank, carrier.size, carrier.local_rank
        self.controller = carrier.controller
        self.transport = "shared memory"

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a vector inside a tf.function; a step outside the graph, but not outside the call."""
        shared = self._vector(vector.shape[0])
        if shared is None:
            return self._carrier.allreduce_sum(vector)
        # TensorFlow may compute in the memory that it is given, so it gets its own; aligned, or it would copy it again.
        total = aligned_zeros(vector.shape[0])

        def exchange(values: np.ndarray) -> np.ndarray:
            np.copyto(total, shared.sum(values))
            return total

        return tf.ensure_shape(tf.numpy_function(exchange, [vector], vector.dtype), vector.shape)

    def make_rounds(self, length: int, produce: Produce, calls_tensorflow: bool = False) -> Rounds:
        """Returns a plain loop."""
        shared = self._vector(length)
        if shared is None:
            return self._carrier.make_rounds(length, produce, calls_tensorflow)
        return plain_rounds(length, produce, shared.sum)

    def compiled_exchange(self, length: int) -> CompiledExchange | None:
        """Returns the sum that `sum` makes."""
        shared = self._vector(length)
        return self._carrier.compiled_exchange(length) if shared is None else shared.compiled

    def take_memory(self, initial: np.ndarray, slots: int, length: int) -> LearnerMemory:
        """Takes memory in common where the vectors are long: each rank updates its part of a large network.

        Of short ones each updates all: that takes less time than to meet once more.
        """
        shared = self._vector(length)
        if shared is None or shared.is_short:
            return own_memory(initial, slots, length)
        try:
            state = SharedState(self._carrier, initial, slots)  # COLLECTIVE
        except UserError:  # too little for the state, too
            return own_memory(initial, slots, length)
        self._states.append(state)
        shared.take_squares(state)
        return LearnerMemory(state.vectors, state.part, state.meeting, shared.slot, state.squares_at)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""
        shared = self._vector(values.size) if values.dtype == np.float32 else None
        if shared is None:
            return self._carrier.sum(values)
        return shared.sum(np.ascontiguousarray(values)).reshape(values.shape).copy()

    def broadcast(self, values: Values) -> Values:
        """Sends rank 0's tensor or array to all."""
        array = np.asarray(values)
        shared = self._vector(array.size) if array.dtype == np.float32 and array.size else None
        if shared is None:
            return self._carrier.broadcast(values)
        sent = shared.broadcast(array.ravel()).reshape(array.shape)
        return sent if isinstance(values, np.ndarray) else tf.convert_to_tensor(sent)

    def gather_json(self, value: Any) -> list[Any]:
        """Gathers by the carrier."""
        return self._carrier.gather_json(value)

    def broadcast_json(self, value: Any) -> Any:
        """Sends by the carrier."""
        return self._carrier.broadcast_json(value)

    def start_timeline(self, path: Path) -> None:
        """Lets Horovod write its timeline, which hears nothing of what goes through memory."""
        self._carrier.start_timeline(path)

    def barrier(self) -> None:
        """Waits by the carrier."""
        self._carrier.barrier()

    def shutdown(self) -> None:
        """Leaves the job."""
        self._carrier.shutdown()

    def abort(self, code: int) -> None:
        """Ends the job."""
        self._carrier.abort(code)

    def _vector(self, length: int) -> SharedVector | None:
        """Returns this length's memory, None where there is none; a collective at a length's first time."""
        if length not in self._vectors:
            try:
                self._vectors[length] = SharedVector(self._carrier, length)  # COLLECTIVE
            except UserError as error:
                if self._required:
                    raise
                self._vectors[length] = None
                self.transport = f"{self._carrier.transport} ({error})"
        return self._vectors[length]
