"""Ranks whose float32 vectors take a way of their own, while MPI or Horovod carry all else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.communicator import Communicator, CompiledExchange, Produce, Rounds, Values, plain_rounds
from hvd_dqn.distributed.exchanged_vector import ExchangedVector
from hvd_dqn.errors import UserError
from hvd_dqn.native.library import aligned_zeros
from hvd_dqn.native.memory import LearnerMemory, own_memory

ExchangeT = TypeVar("ExchangeT", bound=ExchangedVector)


class CarriedCommunicator(ABC, Generic[ExchangeT]):
    """A job's ranks; a subclass makes the exchange for each length of vectors."""

    def __init__(self, carrier: Communicator, transport: str, required: bool) -> None:
        """Takes over a job's ranks.

        Args:
          carrier: these ranks over MPI or Horovod.
          transport: the way's name.
          required: whether a way that there is not is an error; if not, the carrier does everything.
        """
        self._carrier, self._required = carrier, required
        self._exchanges: dict[int, ExchangeT | None] = {}
        self.rank, self.size, self.local_rank = carrier.rank, carrier.size, carrier.local_rank
        self.controller = carrier.controller
        self.transport = transport

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a vector inside a tf.function; a step outside the graph, but not outside the call."""
        own = self._exchange(vector.shape[0])
        if own is None:
            return self._carrier.allreduce_sum(vector)
        # TensorFlow may compute in the memory that it is given, so it gets its own; aligned, or it would copy it again.
        total = aligned_zeros(vector.shape[0])

        def exchange(values: np.ndarray) -> np.ndarray:
            np.copyto(total, own.sum(values))
            return total

        return tf.ensure_shape(tf.numpy_function(exchange, [vector], vector.dtype), vector.shape)

    def make_rounds(self, length: int, produce: Produce, calls_tensorflow: bool = False) -> Rounds:
        """Returns a plain loop."""
        own = self._exchange(length)
        if own is None:
            return self._carrier.make_rounds(length, produce, calls_tensorflow)
        return plain_rounds(length, produce, own.sum)

    def compiled_exchange(self, length: int) -> CompiledExchange | None:
        """Returns the sum that `sum` makes."""
        own = self._exchange(length)
        return self._carrier.compiled_exchange(length) if own is None else own.compiled

    def take_memory(self, initial: np.ndarray, slots: int, length: int) -> LearnerMemory:
        """Takes memory of this rank's own."""
        return own_memory(initial, slots, length)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""
        own = self._exchange(values.size) if values.dtype == np.float32 else None
        if own is None:
            return self._carrier.sum(values)
        return own.sum(np.ascontiguousarray(values)).reshape(values.shape).copy()

    def broadcast(self, values: Values) -> Values:
        """Sends rank 0's tensor or array to all: as a sum to which the others bring -0.0, which changes no number."""
        array = np.asarray(values)
        own = self._exchange(array.size) if array.dtype == np.float32 and array.size else None
        if own is None:
            return self._carrier.broadcast(values)
        vector = np.ascontiguousarray(array).ravel() if self.rank == 0 else np.full(array.size, -0.0, np.float32)
        sent = own.sum(vector).reshape(array.shape).copy()
        return sent if isinstance(values, np.ndarray) else tf.convert_to_tensor(sent)

    def gather_json(self, value: Any) -> list[Any]:
        """Gathers by the carrier."""
        return self._carrier.gather_json(value)

    def broadcast_json(self, value: Any) -> Any:
        """Sends by the carrier."""
        return self._carrier.broadcast_json(value)

    def start_timeline(self, path: Path) -> None:
        """Lets Horovod write its timeline, which hears nothing of the vectors."""
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

    @abstractmethod
    def _make_exchange(self, length: int) -> ExchangeT:
        """Makes the exchange of vectors [length]; a collective.

        Raises:
          UserError: on all ranks, if there can be none.
        """

    def _exchange(self, length: int) -> ExchangeT | None:
        """Returns this length's exchange, None where there is none; a collective at a length's first time."""
        if length not in self._exchanges:
            try:
                self._exchanges[length] = self._make_exchange(length)  # COLLECTIVE
            except UserError as error:
                if self._required:
                    raise
                self._exchanges[length] = None
                self.transport = f"{self._carrier.transport} ({error})"
        return self._exchanges[length]
