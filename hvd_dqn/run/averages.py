"""Statistics over a log period: recent episodes, learner averages, speeds."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

RECENT_EPISODES = 100


class RecentEpisodes:
    """Returns and lengths of the last 100 episodes over all ranks."""

    def __init__(self) -> None:
        """Creates an empty window."""
        self._returns: deque[float] = deque(maxlen=RECENT_EPISODES)
        self._lengths: deque[int] = deque(maxlen=RECENT_EPISODES)

    def add(self, episodes: list[list[float]]) -> None:
        """Adds episodes [env step, return, length] of all ranks, ordered by their end."""
        for _, episode_return, length in sorted(episodes, key=lambda episode: episode[0]):
            self._returns.append(episode_return)
            self._lengths.append(int(length))

    def summary(self) -> dict[str, float | None]:
        """Returns the mean return and length, or None before the first episode has ended."""
        count = len(self._returns)
        return {
            "mean_return": sum(self._returns) / count if count else None,
            "mean_length": sum(self._lengths) / count if count else None,
        }

    def state(self) -> dict[str, list[float]]:
        """Returns a state for `load`."""
        return {"returns": list(self._returns), "lengths": [float(length) for length in self._lengths]}

    def load(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        self._returns.extend(float(value) for value in state["returns"])
        self._lengths.extend(int(length) for length in state["lengths"])


class LearnerAverages:
    """Means of the learner's statistics over a log period, weighted by learner steps."""

    _NAMES = ("loss", "abs_td_error", "mean_q")

    def __init__(self) -> None:
        """Creates empty averages."""
        self._steps = 0
        self._sums = [0.0] * len(self._NAMES)

    def add(self, steps: int, *means: float) -> None:
        """Adds the means of loss, |td| and Q over `steps` learner steps."""
        self._steps += steps
        self._sums = [total + steps * mean for total, mean in zip(self._sums, means, strict=True)]

    def take(self) -> dict[str, float | None]:
        """Returns the means by name, or None without a learner step, and resets them."""
        means = [total / self._steps if self._steps else None for total in self._sums]
        self._steps, self._sums = 0, [0.0] * len(self._NAMES)
        return dict(zip(self._NAMES, means, strict=True))

    def state(self) -> dict[str, Any]:
        """Returns a state for `load`."""
        return {"steps": self._steps, "sums": list(self._sums)}

    def load(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        steps, sums = int(state["steps"]), [float(value) for value in state["sums"]]
        if steps < 0 or len(sums) != len(self._NAMES):
            raise ValueError(f"malformed averages: {len(sums)} sums over {steps} steps")
        self._steps, self._sums = steps, sums


class Speed:
    """Steps per second of training time since the last log line."""

    def __init__(self, env_steps: int, learner_steps: int) -> None:
        """Starts the clock."""
        self._since = time.monotonic()
        self._env_steps, self._learner_steps = env_steps, learner_steps

    def take(self, env_steps: int, learner_steps: int) -> dict[str, float]:
        """Returns both speeds since the last call."""
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        speeds = {
            "env_steps_per_second": (env_steps - self._env_steps) / seconds,
            "learner_steps_per_second": (learner_steps - self._learner_steps) / seconds,
        }
        self._since, self._env_steps, self._learner_steps = now, env_steps, learner_steps
        return speeds

    def leave_out(self, seconds: float) -> None:
        """Excludes time that was not spent training (an evaluation, a checkpoint)."""
        self._since += seconds
