"""Generated prices whose optimal policy is known, and the dynamic programme that computes it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from prices import Bars

NOISE = 0.01
"""Standard deviation of the log price's shock in one bar."""
PERSISTENCE = 0.8
"""Part of the mean-reverting log price's distance from 0 that remains after one bar."""
GRID = 201
"""Points of the grid on which the dynamic programme computes, over five standard deviations each way."""


class Optimum(NamedTuple):
    """The optimal policy of H decisions in S states, from each of A positions."""

    states: np.ndarray
    """float64 [S], of the grid."""
    values: np.ndarray
    """float64 [H + 1, S, A], expected log return until the end, costs included."""
    actions: np.ndarray
    """int64 [H, S, A], index of the position to take."""


def random_walk(rng: np.random.Generator, bars: int) -> Bars:
    """Draws a random walk of the log price without drift; no policy earns anything."""
    return _bars(np.cumsum(rng.normal(0.0, NOISE, bars)))


def mean_reverting(rng: np.random.Generator, bars: int) -> Bars:
    """Draws a log price that returns to 0: x' = PERSISTENCE x + shock, an Ornstein-Uhlenbeck process in discrete time.

    The first one is drawn from the stationary distribution.
    """
    shocks = rng.normal(0.0, NOISE, bars)
    shocks[0] *= stationary_deviation() / NOISE
    return _bars(np.array(list(itertools.accumulate(shocks, lambda x, shock: PERSISTENCE * x + shock))))


SERIES: dict[str, Callable[[np.random.Generator, int], Bars]] = {
    "mean-reverting": mean_reverting,
    "random-walk": random_walk,
}


def stationary_deviation() -> float:
    """Returns the standard deviation of the mean-reverting log price."""
    return float(NOISE / np.sqrt(1 - PERSISTENCE**2))


def optimal_policy(
    transition: np.ndarray, gain: np.ndarray, positions: np.ndarray, cost: float, decisions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the optimal policy of a finite horizon by backward induction (Bellman 1957; Puterman 1994, section 4.5).

    Args:
      transition: float64 [S, S], probability of the next state.
      gain: float64 [S, A], expected log return of each position until the next state.
      positions: float64 [A], in units of equity; one of them is 0.
      cost: fee and half the spread, as a part of the amount that is traded.
      decisions: H. After the last one the position is closed.

    Returns:
      values float64 [H + 1, S, A] and actions int64 [H, S, A], by the decisions made, state, and position before.
    """
    change = np.log1p(-cost * np.abs(positions[None, :] - positions[:, None]))  # [A before, A]
    values = np.empty((decisions + 1, *gain.shape))
    actions = np.empty((decisions, *gain.shape), np.int64)
    values[decisions] = np.log1p(-cost * np.abs(positions))
    for number in reversed(range(decisions)):
        hold = gain + transition @ values[number + 1]  # [S, A]
        q = change[None] + hold[:, None]  # [S, A before, A]
        values[number], actions[number] = q.max(axis=2), q.argmax(axis=2)
    return values, actions


def optimum(series: str, cost: float, decisions: int, *, leak: bool = False) -> Optimum:
    """Computes the optimal policy of a generated series for positions -1, 0 and 1.

    Args:
      series: mean-reverting, whose state is the log price; or random-walk, whose state is the next log return if it is
        leaked, and without which there is nothing to know.
      cost: fee and half the spread, as a part of the amount that is traded.
      decisions: H.
      leak: whether the next log return is observed, of a random walk.

    Raises:
      ValueError: for a mean-reverting series with a leak, which has two states.
    """
    if leak and series == "mean-reverting":
        raise ValueError("the optimum with a leak is computed for a random-walk only")
    positions = np.array([-1.0, 0.0, 1.0])
    spread = stationary_deviation() if series == "mean-reverting" else NOISE
    states = np.linspace(-5, 5, GRID) * spread
    if series == "mean-reverting":
        transition = _normal(states[None] - PERSISTENCE * states[:, None], NOISE)
        steps = states[None] - states[:, None]  # [S, S]
        gain = np.stack([(transition * np.log1p(p * np.expm1(steps))).sum(axis=1) for p in positions], axis=1)
    else:
        transition = np.tile(_normal(states, NOISE), (GRID, 1))
        known = np.log1p(positions * np.expm1(states)[:, None])  # [S, A]
        gain = known if leak else transition @ known
    return Optimum(states, *optimal_policy(transition, gain, positions, cost, decisions))


def start_value(found: Optimum) -> float:
    """Returns the optimal policy's expected log return of an episode, from a random first state and no position."""
    spread = found.states[-1] / 5
    return float(_normal(found.states, spread) @ found.values[0, :, 1])


def _normal(distance: np.ndarray, deviation: float) -> np.ndarray:
    """Returns normal densities as probabilities that sum to 1 over the last axis."""
    density = np.exp(-0.5 * (distance / deviation) ** 2)
    return density / density.sum(axis=-1, keepdims=True)


def _bars(log_price: np.ndarray) -> Bars:
    """Returns bars that open where the one before has closed."""
    close = np.exp(log_price)
    times = np.datetime64("2000-01-01", "s") + np.arange(len(close)) * np.timedelta64(1, "D")
    return Bars(times, np.append(close[0], close[:-1]), close)
