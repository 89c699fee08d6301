"""Laws of epsilon-greedy action selection."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_dqn.learner.policy import Exploration, epsilon_greedy_actions, greedy_actions
from hvd_dqn.schedules import epsilon_ladder
from hvd_dqn.shares import first_index, share

DRAWS = 20_000


def _exploration(schedule: str = "linear", *, ladder: bool = False, first_env: int = 0, own: int = 4) -> Exploration:
    return Exploration(
        schedule,
        start=1.0,
        end=0.1,
        decay_env_steps=100,
        decay_per_episode=0.995,
        ladder=ladder,
        num_envs=10,
        first_env=first_env,
        num_envs_per_rank=own,
    )


def test_greedy_takes_the_best_action_of_each_row() -> None:
    q = np.array([[5.0, 8.0, 2.0], [-3.0, -4.0, -1.0]], np.float32)
    np.testing.assert_array_equal(greedy_actions(q, np.random.default_rng(0)), [1, 2])


def test_ties_are_broken_uniformly_among_the_best_alone() -> None:
    """Actions 0, 2, 3 tie: each expects a third of the draws, standard deviation 67; action 1 none."""
    q = np.tile(np.array([7.0, 6.9, 7.0, 7.0], np.float32), (DRAWS, 1))
    counts = np.bincount(greedy_actions(q, np.random.default_rng(0)), minlength=4)
    assert counts[1] == 0
    assert np.abs(counts[[0, 2, 3]] - DRAWS / 3).max() < 4 * 67


def test_epsilon_zero_is_greedy() -> None:
    q = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    actions = epsilon_greedy_actions(q, np.zeros(1000), np.random.default_rng(1))
    np.testing.assert_array_equal(actions, q.argmax(axis=1))


def test_epsilon_one_is_uniform() -> None:
    """Four actions of equal probability: 5,000 each, standard deviation 61."""
    q = np.tile(np.array([0.0, 9.0, 0.0, 0.0], np.float32), (DRAWS, 1))
    actions = epsilon_greedy_actions(q, np.ones(DRAWS), np.random.default_rng(0))
    assert np.abs(np.bincount(actions, minlength=4) - DRAWS / 4).max() < 4 * 61


def test_each_row_explores_with_its_own_epsilon() -> None:
    """The greedy action comes with 1 - epsilon + epsilon / 4."""
    q = np.tile(np.array([0.0, 9.0, 0.0, 0.0], np.float32), (DRAWS, 1))
    epsilon = np.where(np.arange(DRAWS) % 2, 0.2, 0.8)
    greedy = epsilon_greedy_actions(q, epsilon, np.random.default_rng(0)) == 1
    assert greedy[1::2].mean() == pytest.approx(0.85, abs=0.015)
    assert greedy[0::2].mean() == pytest.approx(0.40, abs=0.02)


def test_same_generator_state_gives_the_same_actions() -> None:
    q = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    draws = [epsilon_greedy_actions(q, np.full(100, 0.5), np.random.default_rng(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_each_schedule_follows_its_own_counter() -> None:
    """Linear and exponential look at env steps, per-episode at episodes."""
    assert _exploration("linear").epsilon(50, 999) == pytest.approx(0.55)
    assert _exploration("exponential").epsilon(50, 999) == pytest.approx(0.1**0.5)
    assert _exploration("per-episode").epsilon(999, 2) == pytest.approx(0.990025)


def test_without_a_ladder_all_environments_share_epsilon() -> None:
    np.testing.assert_array_equal(_exploration(own=3).per_env(0.25), [0.25, 0.25, 0.25])


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_ranks_slices_make_up_the_global_ladder(size: int) -> None:
    """The same environments explore alike at any number of ranks."""
    parts = [
        _exploration(ladder=True, first_env=first_index(10, r, size), own=share(10, r, size)).per_env(0.4)
        for r in range(size)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), epsilon_ladder(0.4, 10))


def test_each_joint_explores_by_itself_among_the_bins_that_it_has() -> None:
    """At epsilon 0.3 the greedy bin of three comes with 0.8, that of two with 0.85, both with 0.68."""
    q = np.tile(np.array([[0.0, 9.0, 0.0], [5.0, 1.0, -np.inf]], np.float32), (DRAWS, 1, 1))
    actions = epsilon_greedy_actions(q, np.full(DRAWS, 0.3), np.random.default_rng(0))
    assert actions.shape == (DRAWS, 2)
    assert actions[:, 1].max() == 1
    greedy = actions == [1, 0]
    np.testing.assert_allclose(greedy.mean(axis=0), [0.8, 0.85], atol=0.015)
    assert greedy.all(axis=1).mean() == pytest.approx(0.8 * 0.85, abs=0.015)


def test_rows_of_joints_explore_with_their_own_epsilon() -> None:
    q = np.tile(np.array([[0.0, 9.0], [9.0, 0.0]], np.float32), (1000, 1, 1))
    actions = epsilon_greedy_actions(q, np.repeat([0.0, 1.0], 500), np.random.default_rng(0))
    assert (actions[:500] == [1, 0]).all()
    np.testing.assert_allclose(actions[500:].mean(axis=0), 0.5, atol=0.1)
