"""Means of a few returns and their confidence intervals."""

from __future__ import annotations

import numpy as np


def bootstrap_interval(
    values: np.ndarray, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Computes the percentile bootstrap interval of the mean (Efron 1979).

    Args:
      values: float [N], one value per episode.
      confidence: the interval's nominal coverage.
      resamples: bootstrap samples drawn.
      seed: seed of the resampling.

    Returns:
      (low, high). For N = 1 both equal the value.

    Raises:
      ValueError: if `values` is empty.
    """
    if len(values) == 0:
        raise ValueError("no values: an interval needs at least one episode")
    rng = np.random.default_rng(seed)
    draws = rng.choice(np.asarray(values, np.float64), size=(resamples, len(values)))
    tail = 100.0 * (1.0 - confidence) / 2.0
    low, high = np.percentile(draws.mean(axis=1), [tail, 100.0 - tail])
    return float(low), float(high)


def interquartile_mean(values: np.ndarray) -> float:
    """Returns the mean of the middle half (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge...").

    Args:
      values: float [N]; a quarter of N, rounded down, is left out at each end.
    """
    ordered = np.sort(values)
    left_out = len(values) // 4
    return float(ordered[left_out : len(values) - left_out].mean())
