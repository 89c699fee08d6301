"""Environments that offer their state, or cannot be replayed; registered when this module is imported."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class WithState(gym.Env[np.ndarray, np.int64]):
    """A noisy walk whose noise depends on all steps of its life, so that only its state can continue it."""

    observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        """Stands at 0."""
        self._place = np.zeros(2)
        self._life = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode."""
        super().reset(seed=seed)
        self._place = self.np_random.normal(size=2)
        return self._place.copy(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Walks until the edge."""
        self._life += 1
        self._place += self.np_random.normal(scale=0.3, size=2) * (1 + self._life % 3)
        done = bool(np.abs(self._place).max() > 5.0)
        return self._place.clip(-10, 10), float(action), done, False, {}

    def get_state(self) -> dict[str, Any]:
        """Returns all that the future depends on, but for the generator."""
        return {"place": self._place, "life": self._life}

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts it back."""
        self._place, self._life = state["place"], state["life"]


class NotDeterministic(gym.Env[np.ndarray, np.int64]):
    """Shows numbers that no seed determines."""

    observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        """Takes a generator of its own."""
        self._rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode that never ends."""
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Shows the next numbers."""
        return self._rng.uniform(size=2).astype(np.float32), float(action), False, False, {}


gym.register("WithState-v0", entry_point=WithState, max_episode_steps=60)
gym.register("NotDeterministic-v0", entry_point=NotDeterministic, max_episode_steps=300)
