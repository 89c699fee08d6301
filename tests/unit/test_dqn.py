"""Laws of DQN's targets and of its loss, on numbers that fit on paper."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.base import Batch, Losses
from hvd_dqn.algorithms.dqn import DQN, double_q_targets, td_targets
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.selection import select_actions

Q_T = tf.constant([[5.0, 8.0, 2.0, 6.0], [1.0, -3.0, 0.0, 4.0]])
R_T = tf.constant([1.0, -2.0])


def test_target_is_reward_plus_discounted_maximum() -> None:
    """1 + 0.9 * 8 = 8.2; -2 + 0.9 * 4 = 1.6."""
    np.testing.assert_allclose(td_targets(R_T, tf.constant([0.9, 0.9]), Q_T), [8.2, 1.6], rtol=1e-6)


def test_terminal_state_is_not_bootstrapped() -> None:
    np.testing.assert_array_equal(td_targets(R_T, tf.zeros(2), Q_T), [1.0, -2.0])


def test_all_negative_values_are_bootstrapped_by_their_maximum() -> None:
    """A mask by multiplication would give 0; -1 is the maximum: 0 + 0.5 * -1."""
    np.testing.assert_allclose(td_targets(tf.zeros(1), tf.constant([0.5]), tf.constant([[-1.0, -7.0]])), [-0.5])


def test_double_dqn_target_values_the_online_networks_choice() -> None:
    """The selector prefers action 2 (worth 2) and 0 (worth 1): 1 + 0.9 * 2 = 2.8; -2 + 0.9 * 1 = -1.1."""
    selector = tf.constant([[0.0, 1.0, 9.0, 3.0], [7.0, 6.0, 5.0, 4.0]])
    targets = double_q_targets(R_T, tf.constant([0.9, 0.9]), Q_T, selector)
    np.testing.assert_allclose(targets, [2.8, -1.1], rtol=1e-6)


def test_double_dqn_equals_dqn_where_both_networks_agree() -> None:
    discount = tf.constant([0.9, 0.0])
    np.testing.assert_array_equal(double_q_targets(R_T, discount, Q_T, Q_T), td_targets(R_T, discount, Q_T))


def test_no_gradient_flows_through_targets() -> None:
    discount = tf.constant([0.9, 0.9])
    selector = tf.constant([[0.0, 1.0, 9.0, 3.0], [7.0, 6.0, 5.0, 4.0]])
    sources = [R_T, discount, Q_T, selector]
    with tf.GradientTape(persistent=True) as tape:
        for source in sources:
            tape.watch(source)
        plain = td_targets(R_T, discount, Q_T)
        double = double_q_targets(R_T, discount, Q_T, selector)
    assert tape.gradient(plain, sources) == [None] * 4
    assert tape.gradient(double, sources) == [None] * 4


def test_gradient_reaches_the_chosen_action_alone() -> None:
    with tf.GradientTape() as tape:
        tape.watch(Q_T)
        chosen = select_actions(Q_T, tf.constant([3, 1]))
    np.testing.assert_array_equal(chosen, [6.0, -3.0])
    np.testing.assert_array_equal(tape.gradient(chosen, Q_T), [[0, 0, 0, 1], [0, 1, 0, 0]])


@pytest.mark.parametrize(
    ("r_shape", "discount_shape", "q_shape"),
    [((2, 1), (2,), (2, 4)), ((2,), (2, 1), (2, 4)), ((2,), (), (2, 4)), ((2,), (2,), (4,)), ((2,), (2,), (2, 4, 1))],
)
def test_wrong_number_of_dimensions_is_refused(r_shape: tuple, discount_shape: tuple, q_shape: tuple) -> None:
    arguments = tf.zeros(r_shape), tf.zeros(discount_shape), tf.zeros(q_shape)
    with pytest.raises(ValueError, match="dimension"):
        td_targets(*arguments)
    with pytest.raises(ValueError, match="dimension"):
        double_q_targets(*arguments, tf.zeros((2, 4)))


def test_a_rewards_column_is_not_broadcast_over_the_batch() -> None:
    """[B, 1] against [B] would silently give [B, B]."""
    with pytest.raises(ValueError, match="r_t"):
        td_targets(tf.zeros((3, 1)), tf.zeros(3), tf.zeros((3, 2)))
    with pytest.raises(ValueError, match="a has shape"):
        select_actions(tf.zeros((3, 2)), tf.zeros((3, 1), tf.int32))
    with pytest.raises(ValueError, match="q_t_selector"):
        double_q_targets(tf.zeros(3), tf.zeros(3), tf.zeros((3, 2)), tf.zeros(3))


def test_batches_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="batch dimensions differ"):
        td_targets(tf.zeros(1), tf.zeros(3), tf.zeros((3, 2)))
    with pytest.raises(ValueError, match="batch dimensions differ"):
        double_q_targets(tf.zeros(3), tf.zeros(3), tf.zeros((3, 2)), tf.zeros((1, 2)))
    with pytest.raises(ValueError, match="batch dimensions differ"):
        select_actions(tf.zeros((3, 2)), tf.zeros(1, tf.int32))


ONLINE = np.array([[5.0, 8.0, 2.0, 6.0], [1.0, 10.0, 3.0, 4.0]], np.float32)
TARGET = np.array([[0.0, 0.0, 0.0, 0.0], [7.0, 2.0, 20.0, 5.0]], np.float32)
"""Q tables [S, A]: the online network prefers action 1 in state 1, the target network action 2."""


def _losses(dqn: DQN, r_t: float, discount_t: float) -> tuple[Losses, np.ndarray, np.ndarray | None]:
    """Returns what DQN makes of action 3 in state 0, which leads to state 1, and its gradient in both tables."""
    online, target = tf.Variable(ONLINE), tf.Variable(TARGET)
    batch = Batch(
        s_tm1=tf.constant([0]),
        a_tm1=tf.constant([3]),
        r_t=tf.constant([r_t]),
        discount_t=tf.constant([discount_t]),
        s_t=tf.constant([1]),
    )
    with tf.GradientTape(persistent=True) as tape:
        losses = dqn.loss(
            lambda s: tf.gather(online, s), lambda s: tf.gather(target, s), batch, Noise(0, tf.constant(1), 0, 1, 1)
        )
        total = tf.reduce_sum(losses.loss)
    gradient = tf.convert_to_tensor(tape.gradient(total, online)).numpy()
    return losses, gradient, tape.gradient(total, target)


@pytest.mark.parametrize(
    ("double", "discount_t", "td_error"),
    [(False, 0.9, 13.0), (True, 0.9, -3.2), (False, 0.0, -5.0), (True, 0.0, -5.0)],
    ids=["dqn", "double dqn", "dqn, terminal", "double dqn, terminal"],
)
def test_loss_priority_q_and_gradient_are_those_of_the_papers(double: bool, discount_t: float, td_error: float) -> None:
    """Q = 6, r = 1; DQN 1 + 0.9 * 20 - 6 = 13, Double DQN 1 + 0.9 * 2 - 6 = -3.2, at the end 1 - 6 = -5.

    The squared loss has the gradient -2 td at the value of the action taken, and none anywhere else: neither at the
    next state's values, by which Double DQN chooses, nor in the target network.
    """
    losses, gradient, in_target = _losses(DQN("mse", double), 1.0, discount_t)
    np.testing.assert_allclose(losses, [[td_error**2], [abs(td_error)], [6.0]], rtol=1e-6)
    expected = np.zeros_like(ONLINE)
    expected[0, 3] = -2 * td_error
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    assert in_target is None


def test_a_huber_loss_has_the_gradient_of_the_clipped_td_error_and_the_whole_priority() -> None:
    """13 - 0.5 = 12.5, gradient -1, priority 13."""
    losses, gradient, _ = _losses(DQN("huber", False), 1.0, 0.9)
    np.testing.assert_allclose(losses, [[12.5], [13.0], [6.0]], rtol=1e-6)
    assert (gradient[0, 3], np.count_nonzero(gradient)) == (-1.0, 1)


def test_the_networks_outputs_are_the_action_values_and_the_native_rule_has_a_name() -> None:
    for double, name in ((False, "dqn"), (True, "double_dqn")):
        dqn = DQN("mse", double)
        assert (dqn.outputs_per_action, dqn.native_rule) == (1, name)
        assert dqn.action_values(Q_T) is Q_T
