"""Lost lives of Atari games, which may end the task in training while the game continues."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

LIFE_LOST = "life_lost"
"""Key of the infos: bool [E], or bool for a single environment, True where the step has cost a life."""


class LifeLosses(VectorWrapper):
    """Marks the steps in which a game's lives decrease, in ALE's vector environment.

    ALE's own `episodic_life` would restart the game after each life, and its `life_loss_info` would report the end of
    an episode that continues.
    """

    def __init__(self, vector_env: VectorEnv[Any, Any, Any]) -> None:
        """Wraps ALE's vector environment."""
        super().__init__(vector_env)
        self._lives = np.zeros(self.num_envs, np.int64)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all games."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._lives = np.array(info["lives"])
        return observation, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all games. In a step that only resets a game, the mark has no meaning."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        before, self._lives = self._lives, np.array(info["lives"])
        return observation, reward, terminated, truncated, {**info, LIFE_LOST: self._lives < before}
