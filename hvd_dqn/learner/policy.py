"""Epsilon-greedy action selection of one rank."""

from __future__ import annotations

import numpy as np

from hvd_dqn.schedules import epsilon_ladder, exponential_epsilon, linear_epsilon, per_episode_epsilon


class Exploration:
    """Epsilon of this rank's environments, from counters that are equal on all ranks."""

    def __init__(
        self,
        schedule: str,
        *,
        start: float,
        end: float,
        decay_env_steps: int,
        decay_per_episode: float,
        ladder: bool,
        num_envs: int,
        first_env: int,
        num_envs_per_rank: int,
    ) -> None:
        """Prepares a schedule.

        Args:
          schedule: "linear", "exponential" or "per-episode".
          start: epsilon at the start.
          end: epsilon after the decay.
          decay_env_steps: global env steps of the first two schedules' decay.
          decay_per_episode: factor per finished episode of the third.
          ladder: whether to spread epsilon over all ranks' environments.
          num_envs: environments over all ranks.
          first_env: global index of this rank's first environment.
          num_envs_per_rank: environments of this rank.
        """
        self._schedule = schedule
        self._start, self._end = start, end
        self._decay_env_steps = decay_env_steps
        self._decay_per_episode = decay_per_episode
        self._ladder = ladder
        self._num_envs = num_envs
        self._own = slice(first_env, first_env + num_envs_per_rank)

    def epsilon(self, env_steps: int, episodes: int) -> float:
        """Returns the schedule's value at a number of global env steps and of finished episodes."""
        if self._schedule == "per-episode":
            return per_episode_epsilon(episodes, start=self._start, end=self._end, decay=self._decay_per_episode)
        decay = linear_epsilon if self._schedule == "linear" else exponential_epsilon
        return decay(env_steps, start=self._start, end=self._end, decay_env_steps=self._decay_env_steps)

    def per_env(self, epsilon: float) -> np.ndarray:
        """Returns float64 [E], the epsilon of each environment of this rank."""
        if self._ladder:
            return epsilon_ladder(epsilon, self._num_envs)[self._own]
        return np.full(self._own.stop - self._own.start, epsilon)


def greedy_actions(q: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Picks a best action of each row, ties broken at random.

    Args:
      q: float32 [B, A], action values.
      rng: decides ties.

    Returns:
      int64 [B].
    """
    best = q == q.max(axis=1, keepdims=True)  # [B, A]
    return np.argmax(rng.random(q.shape) * best, axis=1)


def epsilon_greedy_actions(q: np.ndarray, epsilon: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Picks a random action with probability epsilon, else a best one.

    Where an action has several joints, each is random with probability epsilon, independently of the others.

    Args:
      q: float32 [B, A] or [B, J, A], action values; -inf for actions that may not be taken.
      epsilon: float [B], probability of a random action in each row.
      rng: the rank's generator.

    Returns:
      int64 [B] or [B, J].
    """
    if q.ndim == 3:
        each = epsilon_greedy_actions(q.reshape(-1, q.shape[2]), np.repeat(epsilon, q.shape[1]), rng)  # [B * J]
        return each.reshape(q.shape[:2])
    exploring = rng.random(len(q)) < epsilon  # [B]
    drawn = rng.integers(q.shape[1], size=len(q))  # [B]
    drawn_invalid = np.isneginf(q[np.arange(len(q)), drawn])  # [B]
    if drawn_invalid.any():
        # Invalid draws are replaced by valid ones, each as likely: so are all valid actions together.
        valid = greedy_actions(np.where(np.isneginf(q), q, 0.0), rng)  # [B]
        drawn = np.where(drawn_invalid, valid, drawn)
    return np.where(exploring, drawn, greedy_actions(q, rng))
