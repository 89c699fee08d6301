"""Times one replay's operations; imported by our process and by the peers', so it needs NumPy alone.

Processor time counts, not the clock: no replay here uses a second thread, and the machine may be shared.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

ADDED = 64
REPETITIONS = 300
SHAPES = {"vectors": (8,), "frames": (84, 84, 4)}
"""Of an observation: LunarLander's numbers, or Atari's stack of four frames, newest last."""
DTYPES = {"vectors": np.float32, "frames": np.uint8}
Columns = dict[str, np.ndarray]


class Subject(Protocol):
    """A replay of transitions, in whatever form its library stores them."""

    def add(self, columns: Columns) -> None:
        """Stores transitions [N] with the columns obs, act, rew, next_obs, done."""

    def sample(self, count: int) -> Any:
        """Draws a batch and returns what `update` needs to find its transitions."""

    def update(self, drawn: Any, priorities: np.ndarray) -> None:
        """Sets the priorities [N] of what was drawn."""


def steps(observations: str, one_environment: bool) -> Iterator[Columns]:
    """Yields transitions [N] without end.

    Args:
      observations: vectors, or frames, of which next_obs has one that obs has not.
      one_environment: whether the transitions are consecutive ones of one environment; else one of each of N.
    """
    rng = np.random.default_rng(0)
    now = _observations(rng, observations, ADDED)
    while True:
        if observations == "vectors":
            after = _observations(rng, observations, ADDED)
        elif one_environment:
            film = np.concatenate([np.moveaxis(now[-1], -1, 0), _observations(rng, observations, ADDED)[..., 0]])
            stacks = np.lib.stride_tricks.sliding_window_view(film, 4, axis=0)  # [N + 1, 84, 84, 4]
            now, after = stacks[:-1].copy(), stacks[1:].copy()
        else:
            after = np.concatenate([now[..., 1:], _observations(rng, observations, ADDED)[..., :1]], axis=-1)
        yield {
            "obs": now,
            "act": rng.integers(4, size=ADDED),
            "rew": rng.normal(size=ADDED).astype(np.float32),
            "next_obs": after,
            "done": rng.random(ADDED) < 0.01 if observations == "vectors" else np.zeros(ADDED, np.bool_),
        }
        now = after


def _observations(rng: np.random.Generator, observations: str, count: int) -> np.ndarray:
    shape = (count, *SHAPES[observations])
    if observations == "vectors":
        return rng.normal(size=shape).astype(np.float32)
    images = np.zeros(shape, np.uint8)
    images[:, 30:50] = rng.integers(0, 256, size=(count, 20, 84, 1))
    return images


def microseconds(call: Callable[[Any], object], prepare: Callable[[], Any] = lambda: None) -> float:
    """Returns the median processor time of a call, without that of what it is given."""
    times = []
    for _ in range(REPETITIONS + 20):
        given = prepare()
        before = time.process_time_ns()
        call(given)
        times.append(time.process_time_ns() - before)
    return statistics.median(times[20:]) / 1e3


def measure(
    subject: Subject, capacity: int, prioritized: bool, observations: str = "vectors", one_environment: bool = False
) -> None:
    """Fills the replay and prints one JSON line of microseconds by operation."""
    rng, stream = np.random.default_rng(0), steps(observations, one_environment)
    for _ in range(capacity // ADDED):
        subject.add(next(stream))
    found = {"add 64": microseconds(subject.add, stream.__next__)}
    for count in (32, 512):
        found[f"sample {count}"] = microseconds(lambda _, count=count: subject.sample(count))  # type: ignore[misc]
        if prioritized:
            drawn, priorities = subject.sample(count), rng.random(count).astype(np.float32) + 0.01
            found[f"update {count}"] = microseconds(lambda _, d=drawn, p=priorities: subject.update(d, p))  # type: ignore[misc]
        whole = microseconds(lambda new, count=count: cycle(subject, new, count, prioritized), stream.__next__)  # type: ignore[misc]
        found[f"all of {count}"] = whole
    print(json.dumps(found), flush=True)


def cycle(subject: Subject, new: Columns, count: int, prioritized: bool) -> None:
    """Adds, samples, and updates what was sampled: work that an operation puts off is done in the next one."""
    subject.add(new)
    drawn = subject.sample(count)
    if prioritized:
        subject.update(drawn, np.ones(count, np.float32))
