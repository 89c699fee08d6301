"""Schedules: learning rate and epsilon as functions of global progress."""

from __future__ import annotations

import numpy as np


def linear_learning_rate(env_step: int, *, start: float, end_factor: float, total_env_steps: int) -> float:
    """Interpolates linearly from `start` at env step 0 to `start * end_factor` at the end of the run."""
    return start * (1.0 + min(1.0, env_step / total_env_steps) * (end_factor - 1.0))


def linear_epsilon(env_step: int, *, start: float, end: float, decay_env_steps: int) -> float:
    """Interpolates linearly from `start` at env step 0 to `end` at `decay_env_steps`, constant after.

    Mnih et al. (2015), Methods, "Training details".
    """
    fraction = min(1.0, env_step / decay_env_steps) if decay_env_steps > 0 else 1.0
    return start + fraction * (end - start)


def exponential_epsilon(env_step: int, *, start: float, end: float, decay_env_steps: int) -> float:
    """Decays geometrically from `start` at env step 0 to `end` at `decay_env_steps`, constant after.

    Raises:
      ValueError: if start or end is not positive: a geometric decay cannot reach 0.
    """
    if start <= 0.0 or end <= 0.0:
        raise ValueError(f"exponential decay needs positive epsilons, not {start} and {end}")
    fraction = min(1.0, env_step / decay_env_steps) if decay_env_steps > 0 else 1.0
    return float(start * (end / start) ** fraction)


def per_episode_epsilon(episodes: int, *, start: float, end: float, decay: float) -> float:
    """Multiplies epsilon by `decay` after each episode, down to `end`.

    Args:
      episodes: finished episodes, summed over all ranks.
      start: epsilon before the first episode has ended.
      end: the lower bound.
      decay: the factor per episode.
    """
    return max(end, start * decay**episodes)


def epsilon_ladder(epsilon: float, num_envs: int, *, exponent: float = 7.0) -> np.ndarray:
    """Gives each environment its own epsilon: epsilon ** (1 + exponent * i / (N - 1)).

    Horgan et al. (2018), section 4.1 (epsilon 0.4, exponent 7), https://arxiv.org/abs/1803.00933.

    Args:
      epsilon: the epsilon of the first environment, the largest.
      num_envs: N, environments over all ranks.
      exponent: the epsilon of the last environment is epsilon ** (1 + exponent).

    Returns:
      float64 [N], one epsilon per global environment index, largest first.
    """
    position = np.arange(num_envs) / max(1, num_envs - 1)  # [N]
    return epsilon ** (1.0 + exponent * position)  # [N]
