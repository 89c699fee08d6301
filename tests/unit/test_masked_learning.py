"""Laws of action masks where actions are chosen and valued: an invalid action is as if it did not exist."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.base import Algorithm, Batch
from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.algorithms.munchausen import munchausen_targets
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.selection import of_valid
from hvd_dqn.config import Config, replace
from hvd_dqn.learner.action_values import TensorFlowActionValues
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.noisy import NoisyNetwork
from hvd_dqn.learner.policy import epsilon_greedy_actions, greedy_actions
from hvd_dqn.networks.mlp import build
from hvd_dqn.registry import ALGORITHMS, load
from hvd_dqn.training.parts import configured
from hvd_dqn.transition import Transition

from .learners import learn, make_learner, network_spec, small_mlp, tabular_network

DRAWS = 30_000
Q_T, SELECTOR = [[5.0, 8.0, 2.0]], [[1.0, 9.0, 3.0]]
VALID = [[True, False, True]]
CASES = [
    (name, double)
    for name in sorted(ALGORITHMS)
    for double in (False, True)
    if not (name.startswith("munchausen") and double) and name != "decqn"
]
"""Masks are for Discrete actions; of DecQN's, test_decqn.py has the bins that a joint lacks."""


def _algorithm(name: str, double: bool) -> Algorithm:
    config = replace(Config(), {"algorithm": name, "value_min": -5.0, "value_max": 5.0, "double": double})
    made: Algorithm = configured(load(ALGORITHMS, name), config)
    return made


def _batch(r: float, valid_tm1: Any = None, valid_t: Any = None, a: int = 0, rows: int = 1) -> Batch:
    state, ones = tf.zeros((rows, 1)), tf.ones(rows)
    return Batch(state, tf.fill([rows], a), r * ones, 0.9 * ones, state, valid_tm1, valid_t)


@pytest.mark.parametrize(("double", "target"), [(False, 1 + 0.9 * 5.0), (True, 1 + 0.9 * 2.0)])
def test_dqns_target_takes_the_best_valid_action(double: bool, target: float) -> None:
    """Of 5, (8), 2 the maximum is 5; the online network's choice among 1, (9), 3 is the last, worth 2."""
    batch = _batch(1.0, valid_t=tf.constant(VALID))
    tables = iter([tf.constant(SELECTOR), tf.zeros((1, 3))] if double else [tf.zeros((1, 3))])
    losses = DQN("mse", double).loss(
        lambda s: next(tables), lambda s: tf.constant(Q_T), batch, Noise(0, tf.constant(1), 0, 1, 1)
    )
    np.testing.assert_allclose(losses.priority, [target], rtol=1e-6)


def test_munchausens_policies_take_valid_actions_alone() -> None:
    tau = 0.5
    batch = _batch(1.0, tf.constant([[True, True, False]]), tf.constant(VALID))
    targets = munchausen_targets(
        batch, tf.constant([[0.1, 0.4, 9.0]]), tf.constant(Q_T), bonus=0.9, temperature=tau, floor=-1.0
    )
    log_pi = 0.1 / tau - math.log(math.exp(0.1 / tau) + math.exp(0.4 / tau))
    soft_value = tau * math.log(math.exp(5.0 / tau) + math.exp(2.0 / tau))
    np.testing.assert_allclose(targets, [1.0 + 0.9 * tau * log_pi + 0.9 * soft_value], rtol=1e-6)


@pytest.mark.parametrize(("name", "double"), CASES)
def test_a_loss_is_that_of_a_task_without_the_invalid_action(name: str, double: bool) -> None:
    """Action 1 has by far the largest values in both networks, and cannot be taken."""
    algorithm, rng, rows = _algorithm(name, double), np.random.default_rng(0), 6
    several = 51 if algorithm.takes_fractions else algorithm.outputs_per_action
    shape = (rows, 3, several) if several > 1 else (rows, 3)
    best = np.zeros(shape)
    best[:, 1] = np.linspace(-9.0, 9.0, several) if several > 1 else 4.0
    best[:, 1] += 3.0
    tables = [tf.constant(rng.normal(size=shape) + best, tf.float32) for _ in range(2)]
    valid = tf.constant(VALID * rows)

    def losses(online: tf.Tensor, target: tf.Tensor, batch: Batch) -> Any:
        noise = Noise(0, tf.constant(1), 0, rows, rows)
        return [*algorithm.loss(lambda *_: online, lambda *_: target, batch, noise)]

    online, target = tables
    masked = losses(online, target, _batch(0.3, valid, valid, rows=rows))
    without = losses(tf.gather(online, [0, 2], axis=1), tf.gather(target, [0, 2], axis=1), _batch(0.3, rows=rows))
    np.testing.assert_allclose(masked, without, rtol=1e-5, atol=1e-6)
    assert np.isfinite(masked).all()
    assert np.abs(np.array(losses(online, target, _batch(0.3, rows=rows))[0]) - masked[0]).min() > 1e-3, "it matters"


def test_without_masks_nothing_is_added() -> None:
    values, flat = tf.constant(Q_T), FlatNetwork(small_mlp())
    assert of_valid(values, None) is values
    assert flat.unpack(values) == (values, None)
    assert flat.stored_shape == (4,)


def test_the_learner_takes_masks_apart() -> None:
    """Q(0, 0) moves by 2 * 0.1 * (1 + 0.9 * 5 - 0) = 1.1; without the mask of state 1 it would move by 1.64."""
    network = tabular_network(2, 3)
    network.set_weights([np.array([[0.0, 0.0, 0.0], Q_T[0]], np.float32)])
    learner = make_learner(network, 1, flatten=lambda model: FlatNetwork(model, 3))
    batches = Transition(
        s_tm1=np.array([[[0, 1, 1, 1]]], np.int32),
        a_tm1=np.zeros((1, 1), np.int32),
        r_t=np.ones((1, 1), np.float32),
        discount_t=np.full((1, 1), 0.9, np.float32),
        s_t=np.array([[[1, 1, 0, 1]]], np.int32),
    )
    learn(learner, batches)
    np.testing.assert_allclose(learner.online.numpy(), [1.1, 0.0, 0.0, *Q_T[0]], rtol=1e-6)


def test_rows_of_zeros_have_a_finite_loss() -> None:
    """A rank that has a fault computes with them, at a weight of zero."""
    for name, double in CASES:
        algorithm = _algorithm(name, double)
        network = build(
            network_spec(outputs_per_action=algorithm.outputs_per_action, takes_fractions=algorithm.takes_fractions)
        )
        learner = make_learner(network, 2, algorithm=algorithm, flatten=lambda model: FlatNetwork(model, 3))
        row, s = np.zeros((1, 2), np.float32), np.zeros((1, 2, 7), np.float32)
        assert learn(learner, Transition(s, row.astype(np.int32), row, row, s)).finite, name


@pytest.mark.parametrize("kind", [FlatNetwork, NoisyNetwork])
def test_the_values_of_invalid_actions_are_infinitely_bad(kind: type[FlatNetwork]) -> None:
    plain, masked = kind(small_mlp()), kind(small_mlp(), 3)
    s, masks = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), np.eye(5, 3) == 0
    values, masked_values = (
        TensorFlowActionValues(network, DQN("mse", False), plain.initial_parameters(), 7) for network in (plain, masked)
    )
    for draw in (None, 3):
        given = masked_values(np.concatenate([s, masks], axis=1), draw)
        np.testing.assert_allclose(given[masks], values(s, draw)[masks], rtol=1e-6)
        assert np.isneginf(given[~masks]).all()


def test_random_actions_are_uniform_among_the_valid_ones() -> None:
    """Three of five: 10,000 each, standard deviation 82."""
    q = np.tile(np.array([-np.inf, 2.0, 0.0, -np.inf, 1.0], np.float32), (DRAWS, 1))
    counts = np.bincount(epsilon_greedy_actions(q, np.ones(DRAWS), np.random.default_rng(0)), minlength=5)
    assert (counts[[0, 3]] == 0).all()
    assert np.abs(counts[[1, 2, 4]] - DRAWS / 3).max() < 4 * 82


def test_the_greedy_action_is_the_best_valid_one() -> None:
    q = np.array([[-np.inf, -7.0, -9.0], [-np.inf, -np.inf, -1e30]], np.float32)
    np.testing.assert_array_equal(epsilon_greedy_actions(q, np.zeros(2), np.random.default_rng(0)), [1, 2])
    assert (epsilon_greedy_actions(np.tile(q, (500, 1)), np.ones(1000), np.random.default_rng(0)) > 0).all()


def test_without_masks_the_same_random_numbers_are_drawn() -> None:
    """Coins first, then random actions, then ties."""
    q = np.random.default_rng(3).integers(3, size=(200, 4)).astype(np.float32)
    ours, theirs = np.random.default_rng(4), np.random.default_rng(4)
    for _ in range(5):
        coins = theirs.random(200) < 0.5
        expected = np.where(coins, theirs.integers(4, size=200), greedy_actions(q, theirs))
        np.testing.assert_array_equal(epsilon_greedy_actions(q, np.full(200, 0.5), ours), expected)
