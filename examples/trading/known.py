"""Generated series with known answers: what an agent must find before its results on real prices mean anything."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from market import GeneratedTrading
from play import Played, Policy, play
from series import Optimum, optimum, start_value

from hvd_dqn.statistics import bootstrap_interval

EPISODES = 1_000
"""Episodes on which agent and optimal policy are compared; the same paths for both."""


class Case(NamedTuple):
    """A series, and what an agent must do on it."""

    arguments: dict[str, Any]
    must: str
    settings: dict[str, Any]
    """Changes of settings.toml."""


LITTLE_NOISE = {
    **{"total_env_steps": 500_000, "train_period": 20, "replay_capacity": 500_000, "epsilon_decay_env_steps": 250_000},
    **{"hidden_sizes": (16, 16), "gamma": 0.8},
}
"""More steps, a smaller network, a shorter horizon: values must be right to less than the cost of a trade."""
CASES = {
    "mean-reverting": Case({"series": "mean-reverting"}, "earn >= 90 % of the optimum", {}),
    "random walk": Case(
        {"series": "random-walk"}, "stay out: mean |position| <= 0.05, no significant profit", LITTLE_NOISE
    ),
    "random walk, next return leaked": Case({"series": "random-walk", "leak": True}, "earn >= 90 % of the optimum", {}),
}


def judge(name: str, policy: Policy) -> dict[str, Any]:
    """Compares an agent with the optimal policy; log returns are in percent per episode."""
    arguments = CASES[name].arguments
    envs = [GeneratedTrading(**arguments) for _ in range(EPISODES)]
    seeds = range(1_000_000, 1_000_000 + EPISODES)
    best = optimum(arguments["series"], envs[0].cost, envs[0].episode_bars, leak=arguments.get("leak", False))
    own, other = play(policy, envs, seeds), play(OptimalPolicy(best, envs), envs, seeds)
    earned, low, high = _mean_percent(own)
    optimal = 100 * start_value(best)
    position = float(np.mean([np.abs(played.positions).mean() for played in own]))
    return {
        "earned": round(earned, 3),
        "interval": [round(low, 3), round(high, 3)],
        "optimal": round(optimal, 3),
        "optimal_played": round(_mean_percent(other)[0], 3),
        "mean_abs_position": round(position, 4),
        "passes": bool(position <= 0.05 and low <= 0) if optimal < 0.01 else earned >= 0.9 * optimal,
    }


class OptimalPolicy:
    """The dynamic programme's policy, which reads the state that an agent sees only through its observation."""

    def __init__(self, best: Optimum, envs: list[GeneratedTrading]) -> None:
        self._best, self._envs, self._decision = best, envs, 0

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Returns the optimal actions int64 [N] in the environments' present states."""
        states, number = self._best.states, self._decision
        nearest = np.abs([env.state for env in self._envs] - states[:, None]).argmin(axis=0)
        self._decision += 1
        return self._best.actions[number, nearest, np.round(observations[:, -2]).astype(int) + 1]


def _mean_percent(episodes: list[Played]) -> tuple[float, float, float]:
    """Returns the mean log return of an episode in percent, and its 95 % bootstrap interval."""
    totals = np.array([100 * played.returns.sum() for played in episodes])
    return float(totals.mean()), *bootstrap_interval(totals, resamples=2_000)
