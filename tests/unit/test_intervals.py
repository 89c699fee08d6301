"""Laws of the bootstrap interval of the mean."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_dqn.statistics import bootstrap_interval


def test_equal_values_have_an_interval_of_width_zero() -> None:
    assert bootstrap_interval(np.full(10, 500.0)) == (500.0, 500.0)
    assert bootstrap_interval(np.array([7.0])) == (7.0, 7.0)


def test_interval_is_the_normal_one_for_many_values() -> None:
    """The mean of N values has standard error s / sqrt(N); 95 % lie within 1.96 of them."""
    values = np.random.default_rng(3).normal(10.0, 2.0, size=400)
    half = 1.96 * values.std() / 20
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_interval_of_two_values_spans_them() -> None:
    """Resampled means of (0, 1) are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4: both tails exceed 2.5 %."""
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0.0, 1.0)


def test_less_confidence_gives_a_narrower_interval() -> None:
    values = np.arange(50.0)
    low, high = bootstrap_interval(values, confidence=0.95)
    narrow_low, narrow_high = bootstrap_interval(values, confidence=0.5)
    assert low < narrow_low < values.mean() < narrow_high < high


def test_same_values_always_give_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval(np.array([]))
