"""Measures what the ranks have between them: the time of an allreduce, and how far their clocks differ."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hvd_dqn.distributed.communicator import Communicator

_ROUNDS = 20
_SECONDS_PER_LENGTH = 0.5
_MOST_REPEATS = 200


def time_allreduce(communicator: Communicator, allreduce: Callable[[np.ndarray], Any], length: int) -> dict[str, Any]:
    """Sums a vector over the ranks again and again, for about half a second; a collective.

    Args:
      communicator: the ranks.
      allreduce: sums a float32 vector [length] over the ranks and waits for the sum, a collective.
      length: elements of the vector.

    Returns:
      "bytes", "seconds" (median of the slowest rank) and "wrong" (the ranks whose sum is not the right one).
    """
    size = communicator.size
    pattern = np.arange(length, dtype=np.float32) % 64
    values, expected = pattern + communicator.rank, size * pattern + size * (size - 1) // 2
    right = bool(np.array_equal(np.asarray(allreduce(values)), expected))  # COLLECTIVE: the first one is traced
    first = communicator.broadcast_json(_seconds(allreduce, values))  # COLLECTIVE: the same number of repeats on all
    repeats = max(1, min(_MOST_REPEATS, int(_SECONDS_PER_LENGTH / max(first, 1e-9))))
    times = [_seconds(allreduce, values) for _ in range(repeats)]  # COLLECTIVE
    answers = communicator.gather_json([right, statistics.median(times)])  # COLLECTIVE
    wrong = [rank for rank, (well, _) in enumerate(answers) if not well]
    return {"bytes": 4 * length, "seconds": max(seconds for _, seconds in answers), "wrong": wrong}


def _seconds(allreduce: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    start = time.perf_counter()
    allreduce(values)  # COLLECTIVE
    return time.perf_counter() - start


def compare_clocks(communicator: Communicator) -> list[tuple[float, float]]:
    """Returns bounds of each rank's clock minus rank 0's, in seconds; a collective."""
    own = []
    for _ in range(_ROUNDS):
        before = time.time()
        communicator.barrier()  # COLLECTIVE
        own.append((before, time.time()))
    return clock_bounds(communicator.gather_json(own))  # COLLECTIVE


def clock_bounds(marks: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """Returns bounds of each rank's clock minus rank 0's, in seconds.

    No rank leaves a barrier before all have entered it. So what a rank reads before a barrier is, on a common clock, at
    most what any other reads after it.

    Args:
      marks: [W, rounds, 2], what each rank's clock read before and after each barrier, in seconds.
    """
    return [
        (
            max(before - root_after for (before, _), (_, root_after) in zip(rank, marks[0], strict=True)),
            min(after - root_before for (_, after), (root_before, _) in zip(rank, marks[0], strict=True)),
        )
        for rank in marks
    ]
