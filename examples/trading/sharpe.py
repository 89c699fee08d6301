"""The Sharpe ratio, its bootstrap interval, and its deflation by the number of settings that were tried."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

_EULER = 0.5772156649015329


def sharpe_ratio(returns: np.ndarray) -> np.ndarray:
    """Returns mean over standard deviation of returns float64 [..., T] per bar, float64 [...]; 0 if they do not vary.

    Sharpe (1994), with a risk-free rate of 0. Multiply by the square root of the bars in a year for a year's.
    """
    deviation = returns.std(axis=-1)
    return np.where(deviation > 1e-15, returns.mean(axis=-1) / np.maximum(deviation, 1e-15), 0.0)


def block_bootstrap(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    block: int,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Computes a percentile interval by the moving-block bootstrap (Künsch 1989), which keeps short-range dependence.

    Args:
      values: float64 [T], in the order of time.
      statistic: maps float64 [R, T] to float64 [R].
      block: values in a block, at most T.
      confidence: the interval's nominal coverage.
      resamples: R.
      seed: of the resampling.

    Returns:
      (low, high).
    """
    count = -(-len(values) // block)
    starts = np.random.default_rng(seed).integers(0, len(values) - block + 1, (resamples, count))
    drawn = (starts[..., None] + np.arange(block)).reshape(resamples, -1)[:, : len(values)]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(statistic(values[drawn]), [tail, 100.0 - tail])
    return float(low), float(high)


def expected_best(variance: float, trials: int) -> float:
    """Returns the Sharpe ratio that the best of several worthless settings is expected to show.

    Bailey and López de Prado (2014), "The Deflated Sharpe Ratio", equation 1.

    Args:
      variance: of the settings' Sharpe ratios.
      trials: number of settings that were tried; 0 is returned for 1.
    """
    if trials == 1:
        return 0.0
    quantile = NormalDist().inv_cdf
    weighted = (1 - _EULER) * quantile(1 - 1 / trials) + _EULER * quantile(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * weighted


def deflated_sharpe(ratio: float, threshold: float, bars: int, skewness: float, kurtosis: float) -> float:
    """Returns the probability that the true Sharpe ratio is above a threshold.

    Bailey and López de Prado (2014), equation 2.

    Args:
      ratio: observed, per bar.
      threshold: of `expected_best`, per bar.
      bars: T, that were observed.
      skewness: of the returns.
      kurtosis: of the returns; 3 for a normal distribution.
    """
    spread = math.sqrt(1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2)
    return NormalDist().cdf((ratio - threshold) * math.sqrt(bars - 1) / spread)


def moments(returns: np.ndarray) -> tuple[float, float]:
    """Returns skewness and kurtosis of returns float64 [T]; those of a normal distribution if they do not vary."""
    deviation = returns.std()
    if deviation < 1e-15:
        return 0.0, 3.0
    scaled = (returns - returns.mean()) / deviation
    return float((scaled**3).mean()), float((scaled**4).mean())
