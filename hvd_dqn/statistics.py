"""Means of a few returns, comparisons of algorithms, and their confidence intervals."""

from __future__ import annotations

from collections.abc import Callable

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
    low, high = _percentiles(draws.mean(axis=1), confidence)
    return float(low), float(high)


def bootstrap_band(
    curves: np.ndarray, *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the percentile bootstrap interval of the mean over seeds at each point of their curves.

    Args:
      curves: float [S, T], one curve per seed.
      confidence: the nominal coverage at each point.
      resamples: bootstrap samples of the seeds, the same at all points.
      seed: seed of the resampling.

    Returns:
      (low, high), float64 [T] each. For S = 1 both equal the curve.
    """
    seeds = len(curves)
    counts = np.random.default_rng(seed).multinomial(seeds, np.full(seeds, 1.0 / seeds), size=resamples)  # [R, S]
    low, high = _percentiles(counts @ np.asarray(curves, np.float64) / seeds, confidence)
    return low, high


def interquartile_mean(values: np.ndarray) -> float:
    """Returns the mean of the middle half (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge...").

    Args:
      values: float [...], N in all; a quarter of N, rounded down, is left out at each end.
    """
    ordered = np.sort(values, axis=None)
    left_out = ordered.size // 4
    return float(ordered[left_out : ordered.size - left_out].mean())


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the probability that a run of X scores higher than one of Y on the same task, averaged over the tasks.

    Agarwal et al. (2021), section 4.3: the Mann-Whitney U statistic; a tie counts half.

    Args:
      x: float [R, T], scores of X: runs, tasks.
      y: float [Q, T], scores of Y on the same tasks.
    """
    difference = x[:, None] - y[None]  # [R, Q, T]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def stratified_interval(
    statistic: Callable[..., float],
    *scores: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Computes the percentile interval of a statistic by the stratified bootstrap (Agarwal et al. 2021, section 4.1).

    The runs of each task are resampled by themselves, and those of each algorithm.

    Args:
      statistic: of as many arrays as `scores`.
      scores: float [R, T] of each algorithm: runs, tasks. R may differ between them.
      confidence: the interval's nominal coverage.
      resamples: bootstrap samples drawn.
      seed: seed of the resampling.

    Returns:
      (low, high). With one run per task both equal the statistic.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = [np.take_along_axis(own, rng.integers(len(own), size=own.shape), axis=0) for own in scores]
        found.append(statistic(*drawn))
    low, high = _percentiles(np.array(found), confidence)
    return float(low), float(high)


def _percentiles(draws: np.ndarray, confidence: float) -> np.ndarray:
    """Returns both ends [2, ...] of the central interval over the first axis."""
    tail = 100.0 * (1.0 - confidence) / 2.0
    return np.percentile(draws, [tail, 100.0 - tail], axis=0)
