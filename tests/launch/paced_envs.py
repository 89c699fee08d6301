"""An environment that takes its time, so that a run lasts as long on a fast machine as on a slow one."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv

STEP_SECONDS = 0.001


class PacedCartPole(CartPoleEnv):
    """CartPole at a thousand steps a second."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Waits, then steps."""
        time.sleep(STEP_SECONDS)
        return super().step(action)


gym.register("PacedCartPole-v0", entry_point=PacedCartPole, max_episode_steps=500)
