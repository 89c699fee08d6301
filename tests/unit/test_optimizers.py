"""The flat optimizers against Keras and against a plain NumPy reading of the papers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.learner.optimizers import OPTIMIZERS, clip_by_global_norm

START = np.array([1.0, -2.0, 0.5, 0.0], np.float32)
GRADIENTS = np.random.default_rng(1).normal(scale=3, size=(25, 4)).astype(np.float32)


def _trajectory(name: str, learning_rate: float, epsilon: float = 0.0) -> np.ndarray:
    optimizer = OPTIMIZERS[name]
    parameters = tf.constant(START)
    slots = tuple(tf.zeros(4) for _ in optimizer.slot_names)
    path = []
    for step, gradient in enumerate(GRADIENTS, start=1):
        parameters, slots = optimizer.update(
            parameters, slots, tf.constant(gradient), tf.constant(step, tf.float32), learning_rate, epsilon
        )
        path.append(parameters.numpy())
    return np.array(path)


def _keras_trajectory(optimizer: keras.optimizers.Optimizer) -> np.ndarray:
    variable = keras.Variable(START)
    path = []
    for gradient in GRADIENTS:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        path.append(np.asarray(variable))
    return np.array(path)


def test_adam_equals_keras_step_by_step() -> None:
    expected = _keras_trajectory(keras.optimizers.Adam(1e-2, epsilon=1e-7))
    np.testing.assert_allclose(_trajectory("adam", 1e-2), expected, rtol=1e-6, atol=1e-7)


def test_another_epsilon_of_adam_and_of_rmsprop_equals_keras() -> None:
    adam = keras.optimizers.Adam(1e-2, epsilon=0.5)
    rmsprop = keras.optimizers.RMSprop(0.01, rho=0.95, epsilon=2.0, centered=True)
    np.testing.assert_allclose(_trajectory("adam", 1e-2, 0.5), _keras_trajectory(adam), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(_trajectory("rmsprop", 0.01, 2.0), _keras_trajectory(rmsprop), rtol=1e-4, atol=1e-5)


def test_adams_first_step_is_the_learning_rate_against_the_gradients_sign() -> None:
    """The bias correction cancels at step 1: m / sqrt(v) = g / |g|."""
    first = _trajectory("adam", 0.01)[0]
    np.testing.assert_allclose(first - START, -0.01 * np.sign(GRADIENTS[0]), rtol=1e-4)


def test_rmsprop_equals_numpy_in_double_precision() -> None:
    """Mnih et al. (2015): both moments with 0.95, minimum squared gradient 0.01, no momentum."""
    x, mean, square = START.astype(np.float64), np.zeros(4), np.zeros(4)
    expected = []
    for g in GRADIENTS.astype(np.float64):
        mean, square = 0.95 * mean + 0.05 * g, 0.95 * square + 0.05 * g**2
        x = x - 0.01 * g / np.sqrt(square - mean**2 + 0.01)
        expected.append(x)
    np.testing.assert_allclose(_trajectory("rmsprop", 0.01), expected, rtol=1e-4, atol=1e-5)


def test_rmsprop_equals_keras_centred() -> None:
    optimizer = keras.optimizers.RMSprop(0.01, rho=0.95, epsilon=0.01, centered=True)
    np.testing.assert_allclose(_trajectory("rmsprop", 0.01), _keras_trajectory(optimizer), rtol=1e-4, atol=1e-5)


def test_sgd_subtracts_the_scaled_gradients() -> None:
    np.testing.assert_allclose(_trajectory("sgd", 0.1)[-1], START - 0.1 * GRADIENTS.sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_zero_gradient_from_the_start_moves_nothing(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    slots = tuple(tf.zeros(4) for _ in optimizer.slot_names)
    parameters, _ = optimizer.update(tf.constant(START), slots, tf.zeros(4), tf.constant(1.0), 0.1)
    np.testing.assert_array_equal(parameters, START)


def clipped(gradient: tf.Tensor, max_norm: float) -> tf.Tensor:
    """Clips a gradient whose norm nobody has computed yet."""
    return clip_by_global_norm(gradient, tf.norm(gradient), max_norm)


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 5.0, 1000.0])
def test_clipping_equals_tensorflow(max_norm: float) -> None:
    for gradient in GRADIENTS:
        (expected,), _ = tf.clip_by_global_norm([tf.constant(gradient)], max_norm)
        np.testing.assert_allclose(clipped(tf.constant(gradient), max_norm), expected, rtol=1e-5)


def test_clipping_scales_3_4_to_norm_1_and_leaves_short_gradients_bitwise_alone() -> None:
    np.testing.assert_allclose(clipped(tf.constant([3.0, 4.0]), 1.0), [0.6, 0.8], rtol=1e-6)
    short = np.array([0.3, -0.1, 0.7], np.float32)
    np.testing.assert_array_equal(clipped(tf.constant(short), 10.0), short)
    np.testing.assert_array_equal(clipped(tf.zeros(3), 10.0), np.zeros(3))
