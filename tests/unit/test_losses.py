"""Laws of the losses: values, gradients and their signs, on numbers that fit on paper."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.losses import LOSSES, huber_loss, squared_loss
from hvd_dqn.algorithms.selection import select_actions

TD = tf.constant([0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0])


def _gradient(loss_name: str, td: tf.Tensor) -> np.ndarray:
    with tf.GradientTape() as tape:
        tape.watch(td)
        loss = LOSSES[loss_name](td)
    return tape.gradient(loss, td).numpy()


def test_fourth_action_at_6_with_target_10_costs_16() -> None:
    """(10 - 6)^2 = 16 and d/dQ = -2 * 4 = -8 for the fourth action, 0 for the others."""
    q = tf.constant([[5.0, 8.0, 2.0, 6.0]])
    with tf.GradientTape() as tape:
        tape.watch(q)
        loss = squared_loss(tf.constant([10.0]) - select_actions(q, tf.constant([3])))
    np.testing.assert_array_equal(loss, [16.0])
    np.testing.assert_array_equal(tape.gradient(loss, q), [[0.0, 0.0, 0.0, -8.0]])


def test_huber_is_quadratic_inside_one_and_linear_outside() -> None:
    """0.5 * 0.25 = 0.125 at one half; 0.5 at 1; 3 - 0.5 = 2.5 at 3."""
    np.testing.assert_allclose(huber_loss(TD), [0.0, 0.125, 0.125, 0.5, 0.5, 2.5, 2.5])


def test_huber_equals_keras() -> None:
    td = np.random.default_rng(0).normal(scale=2, size=50).astype(np.float32)
    keras_losses = [tf.keras.losses.Huber()([0.0], [value]).numpy() for value in td]
    np.testing.assert_allclose(huber_loss(tf.constant(td)), keras_losses, rtol=1e-6)


def test_huber_gradient_is_the_clipped_td_error() -> None:
    np.testing.assert_array_equal(_gradient("huber", TD), np.clip(TD, -1, 1))


def test_squared_gradient_is_twice_the_td_error() -> None:
    np.testing.assert_array_equal(_gradient("mse", TD), 2 * TD.numpy())


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_pulls_the_prediction_towards_the_target(name: str) -> None:
    """With td = target - Q, dLoss/dQ is negative where Q is too low and positive where it is too high."""
    q = tf.constant([0.0, 20.0])
    with tf.GradientTape() as tape:
        tape.watch(q)
        loss = LOSSES[name](10.0 - q)
    gradient = tape.gradient(loss, q).numpy()
    assert gradient[0] < 0 < gradient[1]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_keeps_one_value_per_transition(name: str) -> None:
    assert LOSSES[name](TD).shape == TD.shape
