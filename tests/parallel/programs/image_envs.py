"""A small environment of images, for runs with the CNN that take seconds."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

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


gym.register("Dot-v0", Dot, max_episode_steps=30)
gym.register("SmallDot-v0", Dot, max_episode_steps=30, kwargs={"side": 10})
