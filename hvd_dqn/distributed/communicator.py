"""The ranks of a job and their collectives: the real ones over Horovod, and the null object of a single process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from hvd_dqn.native.memory import LearnerMemory, own_memory

Values = TypeVar("Values", np.ndarray, tf.Tensor)
Produce = Callable[[int, np.ndarray], np.ndarray]
"""produce(k, total): takes the sum over ranks of round k - 1 (zeros at 0), returns this rank's vector of round k."""
Rounds = Callable[[int], np.ndarray]
"""Runs K rounds of produce and sum, a collective; returns the last sum."""


def cannot_fail() -> Exception:
    """Returns the failure of a sum that has none."""
    return AssertionError("a sum that cannot fail has failed")


class CompiledExchange(NamedTuple):
    """A sum over the ranks that compiled code can call: `exchange_function` in host_learner.c; zeros if alone."""

    function: int
    context: int
    failure: Callable[[], Exception] = cannot_fail
    """Tells of the last sum, if it failed."""


ALONE = CompiledExchange(0, 0)


def plain_rounds(length: int, produce: Produce, exchange: Callable[[np.ndarray], np.ndarray]) -> Rounds:
    """Returns rounds that are a loop in Python; `exchange` sums a vector over the ranks."""
    nothing = np.zeros(length, np.float32)

    def run(rounds: int) -> np.ndarray:
        total = nothing
        for k in range(rounds):
            total = exchange(produce(k, total))  # COLLECTIVE
        return total

    return run


class Communicator(Protocol):
    """What the job asks of its ranks. Every method below is a collective: all ranks call it, in the same order."""

    rank: int
    size: int
    local_rank: int
    controller: str
    transport: str

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a float32 vector over the ranks inside a tf.function, whose next round overwrites the result."""

    def make_rounds(self, length: int, produce: Produce, calls_tensorflow: bool = False) -> Rounds:
        """Returns a function that runs K rounds: `produce` a float32 vector [length], sum it over the ranks.

        Args:
          length: of the vector.
          produce: see `Produce`.
          calls_tensorflow: whether `produce` does; then it is never called from inside a graph, whose threads it
            would wait for in vain.
        """

    def compiled_exchange(self, length: int) -> CompiledExchange | None:
        """Returns a sum of float32 vectors [length] for compiled rounds, None where there is none."""

    def take_memory(self, initial: np.ndarray, slots: int, length: int) -> LearnerMemory:
        """Takes a learner's memory, in common for all ranks where that pays; see `own_memory`."""

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""

    def broadcast(self, values: Values) -> Values:
        """Returns rank 0's tensor or array on all ranks."""

    def gather_json(self, value: Any) -> list[Any]:
        """Returns every rank's JSON-ready value, in the order of ranks."""

    def broadcast_json(self, value: Any) -> Any:
        """Returns rank 0's JSON-ready value on all ranks."""

    def start_timeline(self, path: Path) -> None:
        """Lets Horovod write its timeline, if there is a Horovod."""

    def barrier(self) -> None:
        """Returns when all ranks have come here."""

    def shutdown(self) -> None:
        """Leaves the job; nothing may be called after."""

    def abort(self, code: int) -> None:
        """Ends this process at once, and through its launcher the whole job (not a collective)."""


class SingleCommunicator:
    """The job of one process: every collective is the identity and costs nothing."""

    rank = 0
    size = 1
    local_rank = 0
    controller = "none (one rank)"
    transport = "none"

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Returns the vector."""
        return vector

    def make_rounds(self, length: int, produce: Produce, calls_tensorflow: bool = False) -> Rounds:
        """Returns a plain loop over `produce`."""
        return plain_rounds(length, produce, self.sum)

    def compiled_exchange(self, length: int) -> CompiledExchange | None:
        """Returns that there is nothing to sum."""
        return ALONE

    def take_memory(self, initial: np.ndarray, slots: int, length: int) -> LearnerMemory:
        """Takes memory of this rank's own."""
        return own_memory(initial, slots, length)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Returns the values."""
        return values

    def broadcast(self, values: Values) -> Values:
        """Returns the values."""
        return values

    def gather_json(self, value: Any) -> list[Any]:
        """Returns the one value in a list, as it would look after the journey."""
        return [json.loads(json.dumps(value))]

    def broadcast_json(self, value: Any) -> Any:
        """Returns the value, as it would look after the journey."""
        return json.loads(json.dumps(value))

    def start_timeline(self, path: Path) -> None:
        """Does nothing."""

    def barrier(self) -> None:
        """Does nothing."""

    def shutdown(self) -> None:
        """Does nothing."""

    def abort(self, code: int) -> None:
        """Ends the process at once."""
        os._exit(code)
