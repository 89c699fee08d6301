"""Laws that hold for every registered algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.base import Algorithm, Batch
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.config import Config, replace
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.noisy import NoisyNetwork
from hvd_dqn.networks.mlp import build
from hvd_dqn.networks.spec import NetworkSpec
from hvd_dqn.registry import ALGORITHMS, load
from hvd_dqn.training.parts import configured
from hvd_dqn.transition import Transition

from .learners import Exchange, learn, make_learner, network_spec, part_of, random_batches

NAMES = sorted(ALGORITHMS)
BATCH, JOINTS = 8, 2


def _algorithm(name: str, **changes: object) -> Algorithm:
    config = replace(Config(), {"algorithm": name, "value_min": -5.0, "value_max": 5.0, **changes})
    made: Algorithm = configured(load(ALGORITHMS, name), config)
    return made


def _spec(algorithm: Algorithm) -> NetworkSpec:
    several, fractions = algorithm.outputs_per_action, algorithm.takes_fractions
    joints = JOINTS if algorithm.takes_joints else 0
    return network_spec(hidden_sizes=(16,), outputs_per_action=several, takes_fractions=fractions, joints=joints)


def _actions(algorithm: Algorithm, a: Any) -> Any:
    """Returns actions [...] as the algorithm takes them: [..., J] where it takes joints, which all do the same."""
    return np.stack([a] * JOINTS, axis=-1) if algorithm.takes_joints else a


@pytest.mark.parametrize("name", NAMES)
def test_the_value_of_a_last_step_becomes_its_reward(name: str) -> None:
    """Action 1 ends the task with a reward of 2: so says its value after a few hundred updates."""
    algorithm = _algorithm(name, munchausen_bonus=0.0)
    network = build(_spec(algorithm))
    shape = _actions(algorithm, np.zeros(())).shape
    learner = make_learner(
        network, BATCH, algorithm=algorithm, optimizer="adam", learning_rate=0.01, action_shape=shape
    )
    s = np.ones((100, BATCH, 4), np.float32)
    column = np.ones((100, BATCH), np.float32)
    batches = Transition(s, _actions(algorithm, column.astype(np.int32)), 2.0 * column, 0.0 * column, s)
    for _ in range(4):
        learn(learner, batches)
    values = algorithm.action_values(FlatNetwork(network)(learner.online, s[0])).numpy()  # [B, A] or [B, J, A]
    np.testing.assert_allclose(values[..., 1].reshape(BATCH, -1).mean(axis=1), 2.0, atol=0.1)


@pytest.mark.parametrize("flatten", [FlatNetwork, NoisyNetwork])
@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_halves_sum_to_the_gradient_of_one(name: str, flatten: type[FlatNetwork]) -> None:
    """Also where an update draws noise: a row of the global batch has its own, wherever it is computed."""
    batches = random_batches(1, 12)
    batches = batches._replace(a_tm1=_actions(_algorithm(name), batches.a_tm1))

    def gradient(first: int, rows: int) -> np.ndarray:
        exchange, algorithm = Exchange(), _algorithm(name)
        learner = make_learner(
            build(_spec(algorithm)),
            rows,
            exchange,
            algorithm=algorithm,
            flatten=flatten,
            action_shape=batches.a_tm1.shape[2:],
            first_row=first,
            global_batch_size=12,
        )
        learn(learner, part_of(batches, first, rows))
        return exchange.gradient()

    halves = gradient(0, 5) + gradient(5, 7)
    whole = gradient(0, 12)
    assert np.abs(whole).max() > 1e-3
    np.testing.assert_allclose(halves, whole, rtol=1e-3, atol=1e-5)


def _shape(algorithm: Algorithm, rows: int, actions: int) -> tuple[int, ...]:
    """Returns the shape of what the network gives; 51 fractions where it takes some."""
    several = 51 if algorithm.takes_fractions else algorithm.outputs_per_action
    if algorithm.takes_joints:
        return rows, JOINTS, actions
    return (rows, actions, several) if several > 1 else (rows, actions)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_learns_by_its_prediction_alone(name: str) -> None:
    algorithm = _algorithm(name)
    shape = _shape(algorithm, BATCH, 3)
    rng = np.random.default_rng(0)
    online, target = (tf.constant(rng.normal(size=shape), tf.float32) for _ in range(2))
    column = tf.ones(BATCH)
    state = tf.zeros((BATCH, 1))
    batch = Batch(state, tf.constant(_actions(algorithm, np.ones(BATCH, np.int32))), column, 0.9 * column, state)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([online, target])
        losses = algorithm.loss(lambda *_: online, lambda *_: target, batch, Noise(0, tf.constant(1), 0, BATCH, BATCH))
    gradient = np.moveaxis(tape.gradient(losses.loss, online).numpy(), 2 if algorithm.takes_joints else 1, 1)
    assert tape.gradient(losses.loss, target) is None
    assert np.abs(gradient[:, 1]).max() > 0
    np.testing.assert_array_equal(gradient[:, [0, 2]], 0)
    assert losses.loss.shape == losses.priority.shape == losses.q.shape == (BATCH,)
    assert (losses.priority.numpy() >= 0).all()


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("munchausen")])
def test_double_values_the_online_networks_choice(name: str) -> None:
    """Where both networks agree on the best action the target is the same; where they do not it is not."""
    plain, double = _algorithm(name), _algorithm(name, double=True)
    rng = np.random.default_rng(1)
    target = tf.constant(rng.normal(size=_shape(plain, 1, 2)) * 3, tf.float32)
    swapped = tf.reverse(target, [2 if plain.takes_joints else 1])
    state = tf.zeros((1, 1))
    batch = Batch(state, tf.constant(_actions(plain, np.zeros(1, np.int32))), tf.ones(1), tf.ones(1), state)

    def loss(algorithm: Algorithm, online: tf.Tensor) -> float:
        noise = Noise(0, tf.constant(1), 0, 1, 1)
        return float(algorithm.loss(lambda *_: online, lambda *_: target, batch, noise).loss[0])

    assert loss(plain, target) == pytest.approx(loss(double, target))
    assert loss(plain, swapped) != pytest.approx(loss(double, swapped), rel=1e-3)
