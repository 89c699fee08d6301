"""Laws of the bootstrapped targets, on numbers that fit on paper."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.targets import chosen_action_values, double_q_targets, td_targets

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
        chosen = chosen_action_values(Q_T, tf.constant([3, 1]))
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
        chosen_action_values(tf.zeros((3, 2)), tf.zeros((3, 1), tf.int32))
    with pytest.raises(ValueError, match="q_t_selector"):
        double_q_targets(tf.zeros(3), tf.zeros(3), tf.zeros((3, 2)), tf.zeros(3))


def test_batches_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="batch dimensions differ"):
        td_targets(tf.zeros(1), tf.zeros(3), tf.zeros((3, 2)))
    with pytest.raises(ValueError, match="batch dimensions differ"):
        double_q_targets(tf.zeros(3), tf.zeros(3), tf.zeros((3, 2)), tf.zeros((1, 2)))
    with pytest.raises(ValueError, match="batch dimensions differ"):
        chosen_action_values(tf.zeros((3, 2)), tf.zeros(1, tf.int32))
