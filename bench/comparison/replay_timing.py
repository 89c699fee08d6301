"""Times one replay's operations; imported by our process and by the peers', so it needs NumPy alone.

Processor time counts, not the clock: no replay here uses a second thread, and the machine may be shared.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

OBSERVATION = 8
"""Numbers of an observation, as LunarLander's."""
ADDED = 64
FILLED_BY = 20_000
REPETITIONS = 300


class Subject(Protocol):
    """A replay of transitions, in whatever form its library stores them."""

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Stores transitions [N] with the columns obs, act, rew, next_obs, done."""

    def sample(self, count: int) -> Any:
        """Draws a batch and returns what `update` needs to find its transitions."""

    def update(self, drawn: Any, priorities: np.ndarray) -> None:
        """Sets the priorities [N] of what was drawn."""


def columns(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns random transitions."""
    return {
        "obs": rng.normal(size=(count, OBSERVATION)).astype(np.float32),
        "act": rng.integers(4, size=count),
        "rew": rng.normal(size=count).astype(np.float32),
        "next_obs": rng.normal(size=(count, OBSERVATION)).astype(np.float32),
        "done": rng.random(count) < 0.01,
    }


def microseconds(call: Callable[[], object]) -> float:
    """Returns the median processor time of a call."""
    for _ in range(20):
        call()
    times = []
    for _ in range(REPETITIONS):
        before = time.process_time_ns()
        call()
        times.append(time.process_time_ns() - before)
    return statistics.median(times) / 1e3


def measure(subject: Subject, capacity: int, prioritized: bool) -> None:
    """Fills the replay and prints one JSON line of microseconds by operation."""
    rng = np.random.default_rng(0)
    chunk = columns(ADDED, rng)
    for _ in range(capacity // ADDED):
        subject.add(chunk)
    found = {"add 64": microseconds(lambda: subject.add(chunk))}
    for count in (32, 512):
        found[f"sample {count}"] = microseconds(lambda count=count: subject.sample(count))  # type: ignore[misc]
        if prioritized:
            drawn, priorities = subject.sample(count), rng.random(count).astype(np.float32) + 0.01
            found[f"update {count}"] = microseconds(lambda d=drawn, p=priorities: subject.update(d, p))  # type: ignore[misc]
        found[f"all of {count}"] = microseconds(lambda count=count: cycle(subject, chunk, count, prioritized))  # type: ignore[misc]
    print(json.dumps(found), flush=True)


def cycle(subject: Subject, chunk: dict[str, np.ndarray], count: int, prioritized: bool) -> None:
    """Adds, samples, and updates what was sampled: work that an operation puts off is done in the next one."""
    subject.add(chunk)
    drawn = subject.sample(count)
    if prioritized:
        subject.update(drawn, np.ones(count, np.float32))
