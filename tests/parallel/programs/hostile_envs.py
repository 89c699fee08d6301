"""Environments whose ranks behave differently, registered with Gymnasium when this module is imported."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

EPISODE_LENGTHS = (1, 7, 300, 1_000_000_000)
"""Steps of an episode by rank; the last one never ends in a test's time."""
FAULT_STEP = 40
"""The step of an environment's life at which it breaks."""


def own_rank() -> int:
    """Returns the rank of this process, whatever launched it."""
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("HOROVOD_RANK", "0")))


class Walk(gym.Env[np.ndarray, np.int64]):
    """A random walk of three numbers; a subclass may break it."""

    observation_space: gym.Space[Any] = gym.spaces.Box(-10.0, 10.0, (3,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def __init__(self, length: int = 20) -> None:
        """Makes an environment with episodes of `length` steps."""
        self._length = length
        self._age = 0
        self._life = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        super().reset(seed=seed)
        self._age = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Walks; each step is worth the action."""
        self._age += 1
        self._life += 1
        return self._observation(), float(action), self._age >= self._length, False, {}

    def _observation(self) -> Any:
        return self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)

    def _breaks(self) -> bool:
        return own_rank() == 1 and self._life == FAULT_STEP


class UnequalEpisodes(Walk):
    """Episodes of 1, 7, 300 and endlessly many steps on ranks 0 to 3."""

    def __init__(self) -> None:
        """Takes the length of this rank."""
        super().__init__(EPISODE_LENGTHS[own_rank()])


class Endless(Walk):
    """Episodes that never end in a test's time."""

    def __init__(self) -> None:
        """Takes the length."""
        super().__init__(EPISODE_LENGTHS[-1])


class NanReward(Walk):
    """Rank 1 returns a reward that is not a number."""

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Walks and breaks."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, float("nan") if self._breaks() else reward, terminated, truncated, info


class HugeReward(Walk):
    """Rank 1 returns a reward that is a number, but whose square is none in float32."""

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Walks and breaks."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, 3e38 if own_rank() == 1 else reward, terminated, truncated, info


class NanObservation(Walk):
    """Rank 1 returns an observation that is not a number."""

    def _observation(self) -> Any:
        return super()._observation() * (np.nan if self._breaks() else 1.0)


class OtherShape(Walk):
    """Rank 1 returns an observation of another shape."""

    def _observation(self) -> Any:
        return np.zeros(5, np.float32) if self._breaks() else super()._observation()


class Raises(Walk):
    """Rank 1 raises."""

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Walks and breaks."""
        if own_rank() == 1 and self._life == FAULT_STEP - 1:
            raise RuntimeError("the floor gave way")
        return super().step(action)


class FileInTheWay(Walk):
    """Rank 1 makes a file, where this rank's folder of replay should be."""

    def __init__(self, path: str) -> None:
        """Takes the file's path."""
        super().__init__()
        self._path = Path(path)

    def _observation(self) -> Any:
        if self._breaks():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
        return super()._observation()


class SlowReset(Walk):
    """The first reset of each environment takes a while on one rank, from a number of them on."""

    made = 0

    def __init__(self, rank: int, seconds: float, first: int = 0) -> None:
        """Takes the rank, the time, and how many environments of a process are made before a slow one."""
        super().__init__()
        self._seconds = seconds if rank == own_rank() and SlowReset.made >= first else 0.0
        SlowReset.made += 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Waits, then starts an episode."""
        self._wait()
        return super().reset(seed=seed)

    def _wait(self) -> None:
        time.sleep(self._seconds)
        self._seconds = 0.0


class SlowInit(SlowReset):
    """The constructor takes that time instead."""

    def __init__(self, rank: int, seconds: float, first: int = 0) -> None:
        """Takes what `SlowReset` takes, and waits."""
        super().__init__(rank, seconds, first)
        self._wait()


class DictObservation(Walk):
    """Shows a Dict."""

    observation_space = gym.spaces.Dict({"here": gym.spaces.Box(-1.0, 1.0, (3,), np.float32)})


class TwoLevers(Walk):
    """Takes two actions at once."""

    action_space = gym.spaces.MultiDiscrete([2, 3])


for _class in (
    *(UnequalEpisodes, Endless, NanReward, HugeReward, NanObservation, OtherShape, Raises),
    *(SlowReset, SlowInit, FileInTheWay, DictObservation, TwoLevers),
):
    gym.register(f"{_class.__name__}-v0", entry_point=_class)
