"""Plays a trained agent, several episodes at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from market import Market

Policy = Callable[[np.ndarray], np.ndarray]
"""Maps observations float32 [N, D] to actions int64 [N]."""


class Played(NamedTuple):
    """What one episode of N bars gave."""

    positions: np.ndarray
    """int64 [N], in units of equity."""
    returns: np.ndarray
    """float64 [N], log returns of equity after costs."""


def play(policy: Policy, envs: Sequence[Market], seeds: Sequence[int]) -> list[Played]:
    """Plays one episode in each of several environments, whose episodes have one length."""
    observations = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    positions, returns, over = [], [], False
    while not over:
        actions = policy(observations)
        answers = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        observations, over = np.stack([answer[0] for answer in answers]), answers[0][2]
        positions.append([env.positions[action] for env, action in zip(envs, actions, strict=True)])
        returns.append([answer[1] * env.reward_unit for env, answer in zip(envs, answers, strict=True)])
    return [Played(*both) for both in zip(np.array(positions).T, np.array(returns).T, strict=True)]
