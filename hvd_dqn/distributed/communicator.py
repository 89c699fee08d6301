"""The ranks of a job and their collectives: the protocol, and the null object of a single process."""

from __future__ import annotations

import abc
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import tensorflow as tf

Values = TypeVar("Values", np.ndarray, tf.Tensor)


class MPIHandles(NamedTuple):
    """What C code needs in order to call MPI_Allreduce itself: handles of a float32 sum over all ranks."""

    library: str
    """Path of a shared library that is linked against MPI."""
    datatype: int
    operation: int
    communicator: int


class Communicator(Protocol):
    """What the job asks of its ranks. All ranks call each method marked COLLECTIVE, in the same order."""

    rank: int
    size: int
    local_rank: int
    controller: str
    mpi_handles: MPIHandles | None
    """None where the ranks are not MPI's."""

    def allreduce_in_graph(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a float32 vector over the ranks inside a tf.function. COLLECTIVE."""

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks. COLLECTIVE."""

    def broadcast(self, values: Values) -> Values:
        """Returns rank 0's tensor or array on all ranks. COLLECTIVE."""

    def gather_json(self, value: Any) -> list[Any]:
        """Returns every rank's JSON-ready value, in the order of ranks. COLLECTIVE."""

    def broadcast_json(self, value: Any) -> Any:
        """Returns rank 0's JSON-ready value on all ranks. COLLECTIVE."""

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Sends the first counts[0] of the rows uint8 [N, R] to rank 0 and so on. COLLECTIVE.

        Returns:
          uint8 [M, R], the rows received, in the order of ranks.
        """

    def start_horovod(self) -> None:
        """Starts Horovod where `allreduce_in_graph` needs it and it does not run yet. COLLECTIVE."""

    def start_timeline(self, path: Path) -> None:
        """Lets Horovod write its timeline, if Horovod runs. COLLECTIVE."""

    def barrier(self) -> None:
        """Returns when all ranks have called it. COLLECTIVE."""

    def shutdown(self) -> None:
        """Ends communication; nothing may be called after. COLLECTIVE."""

    def abort(self, code: int) -> None:
        """Ends this process at once, and through its launcher the whole job. Not a collective."""


class JSONCollectives(abc.ABC):
    """JSON-ready values as bytes over a communicator's arrays; no pickle crosses the network."""

    rank: int

    @abc.abstractmethod
    def broadcast(self, values: Values) -> Values:
        """Returns rank 0's tensor or array on all ranks. COLLECTIVE."""

    @abc.abstractmethod
    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks. COLLECTIVE."""

    @abc.abstractmethod
    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Sends rows to each rank; see `Communicator.exchange`. COLLECTIVE."""

    @abc.abstractmethod
    def barrier(self) -> None:
        """Returns when all ranks have called it. COLLECTIVE."""

    @abc.abstractmethod
    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns every rank's uint8 array [N_r], in the order of ranks. COLLECTIVE."""

    def gather_json(self, value: Any) -> list[Any]:
        """Returns every rank's value. COLLECTIVE."""
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        return [json.loads(part.tobytes()) for part in self.gather(text)]

    def broadcast_json(self, value: Any) -> Any:
        """Returns rank 0's value. COLLECTIVE."""
        text = np.frombuffer(json.dumps(value if self.rank == 0 else None).encode(), np.uint8)
        size = int(self.broadcast(np.array(len(text))))
        padded = np.zeros(size, np.uint8)
        if self.rank == 0:
            padded[:] = text
        return json.loads(self.broadcast(padded).tobytes())


class SingleCommunicator:
    """The job of one process: every collective is the identity and costs nothing."""

    rank = 0
    size = 1
    local_rank = 0
    controller = "none (one rank)"
    mpi_handles: MPIHandles | None = None

    def allreduce_in_graph(self, vector: tf.Tensor) -> tf.Tensor:
        """Returns the vector."""
        return vector

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Returns the values."""
        return values

    def broadcast(self, values: Values) -> Values:
        """Returns the values."""
        return values

    def gather_json(self, value: Any) -> list[Any]:
        """Returns the one value in a list, as JSON would return it."""
        return [json.loads(json.dumps(value))]

    def broadcast_json(self, value: Any) -> Any:
        """Returns the value as JSON would return it."""
        return json.loads(json.dumps(value))

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Returns the rows."""
        return rows

    def start_horovod(self) -> None:
        """Does nothing."""

    def start_timeline(self, path: Path) -> None:
        """Does nothing."""

    def barrier(self) -> None:
        """Does nothing."""

    def shutdown(self) -> None:
        """Does nothing."""

    def abort(self, code: int) -> None:
        """Ends the process at once."""
        os._exit(code)
