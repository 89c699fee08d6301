"""Greedy evaluation of one rank's share of episodes, each with a seed of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

EpisodeSeed = tuple[int, int]
"""An episode's global number and its seed."""


class GreedyEvaluation:
    """Plays a list of episodes greedily, several side by side, in slices of time.

    An episode's return depends on the weights and its seed alone, so the result is the same however the episodes
    are shared out. Work comes in slices so that ranks can meet in between and none waits long for another.
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env[Any, Any]],
        action_values: Callable[[np.ndarray], np.ndarray],
        observation_dtype: np.dtype,
        side_by_side: int = 16,
    ) -> None:
        """Prepares an evaluation.

        Args:
          make_env: makes one environment.
          action_values: maps observations [N, *observation_shape] to Q-values float32 [N, A].
          observation_dtype: the dtype that `action_values` expects.
          side_by_side: episodes played together, so that the network sees batches.
        """
        self._make_env = make_env
        self._action_values = action_values
        self._dtype = observation_dtype
        self._side_by_side = side_by_side
        self._idle_envs: list[gym.Env[Any, Any]] = []
        self._waiting: list[EpisodeSeed] = []
        self._playing: list[_Play] = []
        self._returns: dict[int, float] = {}

    def begin(self, episodes: list[EpisodeSeed]) -> None:
        """Queues episodes and forgets earlier results."""
        self._idle_envs += [play.env for play in self._playing]
        self._waiting, self._playing, self._returns = list(episodes), [], {}

    def run(self, seconds: float) -> int:
        """Plays for about `seconds` and returns the number of episodes not finished yet."""
        deadline = time.monotonic() + seconds
        while self._fill() and time.monotonic() < deadline:
            observations = np.stack([play.observation for play in self._playing]).astype(self._dtype)
            actions = self._action_values(observations).argmax(axis=1)  # [N]
            for play, action in zip(self._playing, actions, strict=True):
                if play.step(int(action)):
                    self._returns[play.number] = play.total
                    self._idle_envs.append(play.env)
            self._playing = [play for play in self._playing if play.number not in self._returns]
        return len(self._waiting) + len(self._playing)

    def returns(self) -> dict[int, float]:
        """Returns the finished episodes' returns by global episode number."""
        return dict(self._returns)

    def close(self) -> None:
        """Closes all environments."""
        for env in self._idle_envs + [play.env for play in self._playing]:
            env.close()
        self._idle_envs, self._playing = [], []

    def _fill(self) -> bool:
        """Starts waiting episodes in free places and returns whether any episode is being played."""
        while self._waiting and len(self._playing) < self._side_by_side:
            number, seed = self._waiting.pop(0)
            env = self._idle_envs.pop() if self._idle_envs else self._make_env()
            self._playing.append(_Play(number, env, seed))
        return bool(self._playing)


class _Play:
    """One episode under way."""

    def __init__(self, number: int, env: gym.Env[Any, Any], seed: int) -> None:
        self.number = number
        self.env = env
        self.total = 0.0
        self.observation, _ = env.reset(seed=seed)

    def step(self, action: int) -> bool:
        """Steps once and returns whether the episode has ended."""
        self.observation, reward, terminated, truncated, _ = self.env.step(action)
        self.total += float(reward)
        return bool(terminated or truncated)
