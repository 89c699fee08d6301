"""What a measured process is told and what it answers: one task in, one line of JSON out."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from comparison.cases import Case

RESULT_PREFIX = "RESULT "
"""Begins the line that carries the answer; libraries print what they like around it."""


class NotApplicable(Exception):
    """Says why a library has no such case."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One measurement."""

    case: Case
    num_envs: int
    updates_per_burst: int
    """Updates made in a row, after updates_per_burst * train_period env steps: the ratio stays the case's."""
    option: str
    """A switch, such as another environment backend; ours: --vectorization. Empty: none."""
    warm_seconds: float
    """Learning time before the clock starts: caches, compilation, allocators."""
    seconds: float
    """Least duration of the measurement."""
    seed: int

    @property
    def env_steps_per_burst(self) -> int:
        """Env steps between two bursts of updates, over all environments."""
        return self.updates_per_burst * self.case.train_period

    def to_json(self) -> str:
        """Writes the task as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Reads the task back."""
        values = json.loads(text)
        case = {**values.pop("case")}
        return cls(case=Case(**{**case, "hidden_sizes": tuple(case["hidden_sizes"])}), **values)


class Stopwatch:
    """Times env steps and updates once learning is warm; fed at the same point of each cycle of steps and updates."""

    def __init__(self, task: Task) -> None:
        self._warm_seconds, self._seconds = task.warm_seconds, task.seconds
        self._learning_since: float | None = None
        self._start: tuple[float, float, int, int, int] | None = None
        self.result: dict[str, Any] = {}

    def tick(self, env_steps: int, updates: int, reset_steps: int = 0) -> bool:
        """Takes the counters so far; returns True once the measurement is complete.

        Args:
          env_steps: as the library counts them, which is what its replay ratio refers to.
          updates: optimizer steps really made.
          reset_steps: those of the env steps that only reset an environment and made no transition.
        """
        now = time.perf_counter()
        if self._start is None:
            if updates > 0 and self._learning_since is None:
                self._learning_since = now
            if self._learning_since is not None and now - self._learning_since >= self._warm_seconds:
                self._start = (now, time.process_time(), env_steps, updates, reset_steps)
            return False
        since, cpu_seconds_before, env_steps_before, updates_before, reset_steps_before = self._start
        if now - since < self._seconds:
            return False
        self.result = {
            "seconds": now - since,
            "cpu_seconds": time.process_time() - cpu_seconds_before,
            "env_steps": env_steps - env_steps_before,
            "updates": updates - updates_before,
            "reset_steps": reset_steps - reset_steps_before,
        }
        return True


def serve(run: Callable[[Task, Stopwatch], None]) -> None:
    """Runs the task of the command line's first argument and prints the answer.

    Args:
      run: trains until the stopwatch's `tick` returns True.
    """
    task = Task.from_json(sys.argv[1])
    stopwatch = Stopwatch(task)
    try:
        run(task, stopwatch)
        answer = stopwatch.result
    except NotApplicable as reason:
        answer = {"not_applicable": str(reason)}
    sys.stdout.flush()
    print(RESULT_PREFIX + json.dumps(answer), flush=True)
