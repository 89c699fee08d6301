"""Greedy evaluation of one rank's share of the episodes. Each episode has its own seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

EpisodeSeed = tuple[int, int]
"""An episode's global number and its seed."""


class GreedyEvaluation:
    """Plays a list of episodes greedily, several at a time, in time slices.

    The return of an episode depends only on the weights and its seed, so the result does not depend on how the episodes
    are split over the ranks. Between two time slices the ranks synchronise, so no rank waits long for another.
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env[Any, Any]],
        action_values: Callable[[np.ndarray], np.ndarray],
        observation_dtype: np.dtype,
        max_parallel: int = 16,
    ) -> None:
        """Creates an evaluation without episodes.

        Args:
          make_env: creates one environment.
          action_values: maps observations [N, *observation_shape] to Q-values float32 [N, A].
          observation_dtype: the dtype that `action_values` expects.
          max_parallel: episodes played at the same time, as one batch for the network.
        """
        self._make_env = make_env
        self._action_values = action_values
        self._dtype = observation_dtype
        self._max_parallel = max_parallel
        self._idle_envs: list[gym.Env[Any, Any]] = []
        self._queued: list[EpisodeSeed] = []
        self._playing: list[_Episode] = []
        self._returns: dict[int, float] = {}

    def begin(self, episodes: list[EpisodeSeed]) -> None:
        """Queues episodes and discards earlier results."""
        self._idle_envs += [play.env for play in self._playing]
        self._queued, self._playing, self._returns = list(episodes), [], {}

    def run(self, seconds: float) -> int:
        """Plays for about `seconds` and returns the number of unfinished episodes."""
        deadline = time.monotonic() + seconds
        while self._fill() and time.monotonic() < deadline:
            observations = np.stack([play.observation for play in self._playing]).astype(self._dtype)
            actions = self._action_values(observations).argmax(axis=1)  # [N]
            for play, action in zip(self._playing, actions, strict=True):
                if play.step(int(action)):
                    self._returns[play.number] = play.total
                    self._idle_envs.append(play.env)
            self._playing = [play for play in self._playing if play.number not in self._returns]
        return len(self._queued) + len(self._playing)

    def returns(self) -> dict[int, float]:
        """Returns the returns of the finished episodes, by global episode number."""
        return dict(self._returns)

    def close(self) -> None:
        """Closes all environments."""
        for env in self._idle_envs + [play.env for play in self._playing]:
            env.close()
        self._idle_envs, self._playing = [], []

    def _fill(self) -> bool:
        """Starts queued episodes up to the limit. Returns True if any episode is being played."""
        while self._queued and len(self._playing) < self._max_parallel:
            number, seed = self._queued.pop(0)
            env = self._idle_envs.pop() if self._idle_envs else self._make_env()
            self._playing.append(_Episode(number, env, seed))
        return bool(self._playing)


class _Episode:
    """One running episode."""

    def __init__(self, number: int, env: gym.Env[Any, Any], seed: int) -> None:
        self.number = number
        self.env = env
        self.total = 0.0
        self.observation, _ = env.reset(seed=seed)

    def step(self, action: int) -> bool:
        """Steps once. Returns True if the episode has ended."""
        self.observation, reward, terminated, truncated, _ = self.env.step(action)
        self.total += float(reward)
        return bool(terminated or truncated)
