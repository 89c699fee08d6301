"""Laws of the schedules."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_dqn.schedules import (
    epsilon_ladder,
    exponential_epsilon,
    linear_epsilon,
    linear_learning_rate,
    per_episode_epsilon,
)


@pytest.mark.parametrize(
    ("end_factor", "rates"),
    [(1.0, [0.2, 0.2, 0.2, 0.2]), (0.1, [0.2, 0.155, 0.02, 0.02]), (0.0, [0.2, 0.15, 0.0, 0.0])],
)
def test_the_learning_rate_falls_in_a_straight_line_to_the_end_of_the_run(
    end_factor: float, rates: list[float]
) -> None:
    found = [
        linear_learning_rate(step, start=0.2, end_factor=end_factor, total_env_steps=100) for step in (0, 25, 100, 101)
    ]
    assert found == pytest.approx(rates)


@pytest.mark.parametrize(("env_step", "epsilon"), [(0, 1.0), (25, 0.775), (50, 0.55), (100, 0.1), (10_000, 0.1)])
def test_linear_schedule_is_a_straight_line_and_then_constant(env_step: int, epsilon: float) -> None:
    assert linear_epsilon(env_step, start=1.0, end=0.1, decay_env_steps=100) == pytest.approx(epsilon)


@pytest.mark.parametrize(("env_step", "epsilon"), [(0, 1.0), (50, 0.1), (100, 0.01), (10_000, 0.01)])
def test_exponential_schedule_falls_by_equal_factors(env_step: int, epsilon: float) -> None:
    """1 to 0.01 over 100 steps passes the geometric mean 0.1 half-way."""
    assert exponential_epsilon(env_step, start=1.0, end=0.01, decay_env_steps=100) == pytest.approx(epsilon)


@pytest.mark.parametrize("schedule", [linear_epsilon, exponential_epsilon])
def test_no_decay_means_the_end_value_at_once(schedule: object) -> None:
    assert schedule(0, start=1.0, end=0.1, decay_env_steps=0) == pytest.approx(0.1)  # type: ignore[operator]


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.0, 0.0), (1.0, -0.1)])
def test_exponential_schedule_cannot_reach_zero(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        exponential_epsilon(1, start=start, end=end, decay_env_steps=10)


def test_per_episode_schedule_is_the_classic_one() -> None:
    """0.995 per episode from 1.0: 0.995, 0.990025, ...; 0.01 is reached between episodes 918 and 919."""
    epsilons = [per_episode_epsilon(n, start=1.0, end=0.01, decay=0.995) for n in (0, 1, 2, 918, 919, 5000)]
    assert epsilons[:3] == pytest.approx([1.0, 0.995, 0.990025])
    assert epsilons[3] > 0.01
    assert epsilons[4:] == [0.01, 0.01]


def test_ladder_is_horgans() -> None:
    """Epsilon 0.4, exponent 7: 0.4^1, 0.4^(1 + 7/2), 0.4^8 for three environments."""
    np.testing.assert_allclose(epsilon_ladder(0.4, 3), [0.4, 0.4**4.5, 0.4**8])
    assert pytest.approx(0.00065536) == 0.4**8


def test_ladder_of_one_environment_is_epsilon_itself() -> None:
    np.testing.assert_array_equal(epsilon_ladder(0.4, 1), [0.4])


def test_ladder_of_full_exploration_explores_fully_everywhere() -> None:
    np.testing.assert_array_equal(epsilon_ladder(1.0, 5), np.ones(5))
