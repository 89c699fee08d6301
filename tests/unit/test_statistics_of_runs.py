"""Laws of what compares algorithms over runs and tasks, next to rliable's own functions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from rliable import metrics  # type: ignore[import-untyped]

from hvd_dqn.statistics import (
    bootstrap_band,
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
    stratified_interval,
)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (4, 5), (7, 3), (10, 26)])
def test_the_interquartile_mean_is_rliables(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).normal(size=shape)
    assert interquartile_mean(scores) == pytest.approx(metrics.aggregate_iqm(scores))


def test_the_interquartile_mean_by_hand() -> None:
    """Of eight values two are left out at each end: (3 + 4 + 5 + 6) / 4."""
    assert interquartile_mean(np.array([[1, 100, 3, 4], [5, 6, 2, 90]])) == 4.5


@pytest.mark.parametrize("tasks", [1, 4])
def test_the_probability_of_improvement_is_rliables(tasks: int) -> None:
    """With ties: scores are small integers."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 4, (5, tasks)).astype(float), rng.integers(0, 4, (3, tasks)).astype(float)
    assert probability_of_improvement(x, y) == pytest.approx(metrics.probability_of_improvement(x, y))
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1.0)


def test_the_probability_of_improvement_by_hand() -> None:
    """Task 1: of 4 pairs (1,0) (1,2) (3,0) (3,2) three are higher. Task 2: a tie and a loss of 2 pairs each."""
    x, y = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[0.0, 5.0], [2.0, 9.0]])
    assert probability_of_improvement(x, y) == (3 / 4 + (0.5 + 0.0) / 2) / 2


def test_the_stratified_interval_is_that_of_all_samples_there_are() -> None:
    """Two runs of two tasks: each task has 4 samples, so that there are 16; enumerated, each equally likely."""
    scores = np.array([[0.0, 10.0], [1.0, 14.0]])
    samples = [
        np.array([[scores[a, 0], scores[c, 1]], [scores[b, 0], scores[d, 1]]]).mean()
        for a, b, c, d in itertools.product(range(2), repeat=4)
    ]
    expected = np.percentile(samples, [20.0, 80.0], method="inverted_cdf")
    found = stratified_interval(np.mean, scores, confidence=0.6, resamples=4_000)
    assert found == pytest.approx(expected)


def test_runs_of_one_task_never_replace_those_of_another() -> None:
    """Tasks of scale 0 and 1000 with equal runs leave nothing to resample."""
    scores = np.tile([0.0, 1000.0], (5, 1))
    assert stratified_interval(np.mean, scores, resamples=50) == (500.0, 500.0)
    assert stratified_interval(probability_of_improvement, scores, scores[:3], resamples=50) == (0.5, 0.5)


def test_one_task_has_the_interval_of_the_plain_bootstrap() -> None:
    values = np.random.default_rng(2).normal(size=(40, 1))
    stratified = stratified_interval(np.mean, values, resamples=8_000)
    assert stratified == pytest.approx(bootstrap_interval(values[:, 0]), abs=0.02)


def test_the_band_is_the_interval_at_each_point() -> None:
    curves = np.random.default_rng(3).normal(size=(30, 5)) + np.arange(5.0)
    low, high = bootstrap_band(curves, resamples=10_000)
    for point in range(5):
        assert (low[point], high[point]) == pytest.approx(bootstrap_interval(curves[:, point]), abs=0.02)


def test_one_seed_has_a_band_of_width_zero() -> None:
    curve = np.array([[1.0, 2.0]])
    assert [part.tolist() for part in bootstrap_band(curve)] == [[1.0, 2.0], [1.0, 2.0]]
