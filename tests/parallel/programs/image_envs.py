"""Small environments of images, for runs with the CNN that take seconds."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation

SIDE = 60
"""Pixels: enough that the CNN's gradient is long (`shared_sum.c`) on two ranks."""
COLUMNS = 6


class Dot(gym.Env[np.ndarray, np.int64]):
    """A bright square is moved left or right until it stands below a dim one: for each step there is -1."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, side: int = SIDE) -> None:
        """Sets the pixels per side."""
        self._side = side
        self.observation_space = gym.spaces.Box(0, 255, (side, side, 2), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        super().reset(seed=seed)
        self._goal, self._place = self.np_random.choice(COLUMNS, 2, replace=False)
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves."""
        self._place = np.clip(self._place + (1 if action else -1), 0, COLUMNS - 1)
        return self._observation(), -1.0, bool(self._place == self._goal), False, {}

    def _observation(self) -> np.ndarray:
        image, width = np.zeros((self._side, self._side, 2), np.uint8), self._side // COLUMNS
        for row, column, channel, brightness in ((0, self._goal, 0, 100), (self._side - width, self._place, 1, 255)):
            image[row : row + width, column * width : (column + 1) * width, channel] = brightness
        return image


class GreyDot(Dot):
    """The same in one grey channel, and a few bright pixels that count the steps."""

    def __init__(self, side: int = SIDE) -> None:
        """Sets the pixels per side."""
        super().__init__(side)
        self.observation_space = gym.spaces.Box(0, 255, (side, side), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        self._steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves."""
        self._steps += 1
        return super().step(action)

    def _observation(self) -> np.ndarray:
        image: np.ndarray = super()._observation().max(axis=-1)
        image[self._side // 2, : self._steps] = 200
        return image


def stacked_dot(frames: int = 4) -> gym.Env[Any, Any]:
    """Returns the environment with stacked frames, channels first."""
    return FrameStackObservation(GreyDot(), frames)


gym.register("StackedDot-v0", stacked_dot, max_episode_steps=30)
gym.register("Dot-v0", Dot, max_episode_steps=30)
gym.register("SmallDot-v0", Dot, max_episode_steps=30, kwargs={"side": 10})
