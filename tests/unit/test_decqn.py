"""Laws of DecQN's value and targets, against plain Python, and against a search over all joint actions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.base import Batch
from hvd_dqn.algorithms.decqn import DecQN, decoupled_targets, mean_over_joints
from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.learner.action_values import TensorFlowActionValues
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.networks.mlp import build

from .learners import learn, make_learner, network_spec, random_batches

Q_T = [[[1.0, 4.0, 2.0], [3.0, 0.0, -1.0]], [[-2.0, -3.0, -9.0], [5.0, 6.0, 0.5]]]
SELECTOR = [[[9.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]
VALID = np.array([[True, True, True], [True, False, False]])
"""Three bins of the first joint, one of the second."""


def _batch(a: Any = ((0, 1), (2, 0)), valid: Any = None) -> Batch:
    state = tf.zeros((2, 1))
    r, discount = tf.constant([1.0, -0.5]), tf.constant([0.9, 0.0])
    return Batch(state, tf.constant(a), r, discount, state, valid, valid)


def _loss(algorithm: Any, online: tf.Tensor, target: tf.Tensor, batch: Batch) -> Any:
    return algorithm.loss(lambda *_: online, lambda *_: target, batch, Noise(0, tf.constant(1), 0, 2, 2))


def test_the_value_is_the_mean_of_the_joints_values() -> None:
    """(4 + 3) / 2 in the first row, (-9 + 6) / 2 in the second."""
    np.testing.assert_allclose(mean_over_joints(tf.constant(Q_T), tf.constant([[1, 0], [2, 1]])), [3.5, -1.5])


def test_the_target_is_the_best_of_all_joint_actions() -> None:
    """1 + 0.9 (4 + 3) / 2; the second transition is terminal. A search over the nine actions finds the same."""
    q_t = tf.constant(Q_T)
    targets = decoupled_targets(_batch(), q_t, q_t)
    np.testing.assert_allclose(targets, [1.0 + 0.9 * 3.5, -0.5], rtol=1e-6)
    best = max((Q_T[0][0][first] + Q_T[0][1][second]) / 2 for first, second in itertools.product(range(3), repeat=2))
    np.testing.assert_allclose(targets[0], 1.0 + 0.9 * best, rtol=1e-6)


def test_with_double_the_online_network_chooses_each_joints_bin() -> None:
    """Bins 0 and 2, which the target network values at 1 and -1."""
    targets = decoupled_targets(_batch(), tf.constant(Q_T), tf.constant(SELECTOR))
    np.testing.assert_allclose(targets, [1.0 + 0.9 * (1.0 - 1.0) / 2, -0.5], rtol=1e-6)
    for double, target in ((False, 1.0 + 0.9 * 3.5), (True, 1.0)):
        losses = _loss(DecQN("mse", double), tf.constant(SELECTOR), tf.constant(Q_T), _batch())
        q = (9.0 + 0.0) / 2
        np.testing.assert_allclose([losses.priority[0], losses.q[0]], [abs(target - q), q], rtol=1e-5)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_one_joint_is_dqn(loss: str, double: bool) -> None:
    online, target = tf.constant(SELECTOR)[:, 0], tf.constant(Q_T)[:, 0]  # [B, A]
    ours = _loss(DecQN(loss, double), online[:, None], target[:, None], _batch([[1], [2]]))
    theirs = _loss(DQN(loss, double), online, target, _batch([1, 2]))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_each_bin_taken_gets_its_share_of_the_gradient_and_no_other_any() -> None:
    online = tf.constant(SELECTOR)
    with tf.GradientTape() as tape:
        tape.watch(online)
        losses = _loss(DecQN("mse", double=True), online, tf.constant(Q_T), _batch())
    gradient = tape.gradient(losses.loss, online).numpy()  # [B, J, A]
    expected = np.zeros((2, 2, 3))
    td_error = np.array([1.0, -0.5]) - np.array([4.5, 0.5])
    for row, joint in itertools.product(range(2), repeat=2):
        expected[row, joint, ((0, 1), (2, 0))[row][joint]] = -2.0 * td_error[row] / 2
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_no_gradient_flows_through_targets() -> None:
    q = tf.constant(Q_T)
    with tf.GradientTape() as tape:
        tape.watch(q)
        targets = decoupled_targets(_batch(), q, q)
    assert tape.gradient(targets, q) is None


def test_a_bin_that_a_joint_does_not_have_is_no_maximum() -> None:
    """Of the second joint only 5 remains of 5, 6, 0.5, and 3 of 3, 0, -1."""
    batch = _batch(valid=tf.tile(VALID[None], [2, 1, 1]))._replace(discount_t=tf.constant([0.9, 0.9]))
    q_t = tf.constant(Q_T)
    targets = decoupled_targets(batch, q_t, q_t)
    np.testing.assert_allclose(targets, [1.0 + 0.9 * (4.0 + 3.0) / 2, -0.5 + 0.9 * (-2.0 + 5.0) / 2], rtol=1e-6)


def test_bins_that_a_joint_does_not_have_are_infinitely_bad_and_never_learned() -> None:
    """They are the last two of the network's six outputs."""
    model = build(network_spec(num_actions=3, joints=2))
    network = FlatNetwork(model, valid_bins=VALID)
    algorithm = DecQN("mse", double=True)
    learner = make_learner(
        model, 8, algorithm=algorithm, action_shape=(2,), flatten=lambda own: FlatNetwork(own, 0, VALID)
    )
    before = network.layout.views(np.array(learner.online))
    batches = random_batches(3, 8)
    a = np.stack([batches.a_tm1, np.zeros_like(batches.a_tm1)], axis=-1)
    learn(learner, batches._replace(a_tm1=a))
    after = network.layout.views(np.array(learner.online))
    moved = (after["dense_1/bias"] != before["dense_1/bias"]).tolist()
    assert moved == [True, True, True, True, False, False]
    values = TensorFlowActionValues(network, algorithm, np.array(learner.online))(batches.s_t[0])
    np.testing.assert_array_equal(np.isneginf(values), np.tile(~VALID, (8, 1, 1)))


@pytest.mark.parametrize(
    ("values", "a", "words"),
    [
        (tf.zeros((2, 3)), tf.zeros((2, 2), tf.int32), "values has shape"),
        (tf.zeros((2, 2, 3)), tf.zeros(2, tf.int32), "a has shape"),
        (tf.zeros((2, 2, 3)), tf.zeros((3, 2), tf.int32), "batch dimensions differ"),
    ],
)
def test_wrong_shapes_are_refused(values: tf.Tensor, a: tf.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mean_over_joints(values, a)
