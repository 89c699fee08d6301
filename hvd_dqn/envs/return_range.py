"""The discounted returns that were really seen, from every step of every episode that has ended."""

from __future__ import annotations

import math

import numpy as np


class ReturnRange:
    """The lowest and the highest discounted return since the process began."""

    def __init__(self, num_envs: int, gamma: float) -> None:
        """Has seen none.

        Args:
          num_envs: E.
          gamma: discount per step.
        """
        self._gamma = gamma
        self._rewards: list[list[float]] = [[] for _ in range(num_envs)]
        self.lowest, self.highest = math.inf, -math.inf

    def add(self, r_t: np.ndarray, envs: np.ndarray, ended: np.ndarray) -> None:
        """Takes one step of some environments.

        Args:
          r_t: float [N], rewards as they are learned from.
          envs: int [N], their environments.
          ended: bool [N], whether the episode ended with this step.
        """
        for env, reward in zip(envs.tolist(), r_t.tolist(), strict=True):
            self._rewards[env].append(reward)
        for env in envs[ended].tolist():
            total = 0.0
            for reward in reversed(self._rewards[env]):
                total = reward + self._gamma * total
                self.lowest, self.highest = min(self.lowest, total), max(self.highest, total)
            self._rewards[env].clear()

    def forget_open_episodes(self) -> None:
        """Drops the rewards of episodes that have not ended."""
        for rewards in self._rewards:
            rewards.clear()
