"""CartPole that takes its time without needing a core, so that a test's events fall into a run of known length."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class SlowCartPole(CartPoleEnv):
    """Sleeps before each step."""

    def __init__(self, seconds: float = 0.002) -> None:
        """Makes an environment whose steps take at least that long."""
        super().__init__()
        self._seconds = seconds

    def step(self, action: Any) -> Any:
        """Sleeps, then steps."""
        time.sleep(self._seconds)
        return super().step(action)


gym.register("SlowCartPole-v1", SlowCartPole, max_episode_steps=500)
