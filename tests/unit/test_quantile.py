"""Laws of the quantile Huber loss, on paper and against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.quantile import midpoints, quantile_huber_loss


def test_midpoints_are_the_middles_of_equal_parts() -> None:
    np.testing.assert_allclose(midpoints(4), [0.125, 0.375, 0.625, 0.875])


def test_loss_on_paper() -> None:
    """One quantile of fraction 0.25 at 0: above it (error 0.5) 0.25 * 0.125; below it (error -3) 0.75 * 2.5."""
    loss = quantile_huber_loss(tf.constant([[0.0], [0.0]]), tf.constant([[0.25]]), tf.constant([[0.5], [-3.0]]))
    np.testing.assert_allclose(loss, [0.25 * 0.125, 0.75 * 2.5], rtol=1e-6)


def test_loss_equals_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(0)
    theta, targets, fractions = rng.normal(size=(3, 4)) * 2, rng.normal(size=(3, 5)) * 2, rng.uniform(size=(3, 4))
    expected = np.zeros(3)
    for row in range(3):
        for i in range(4):
            for j in range(5):
                u = targets[row, j] - theta[row, i]
                huber = 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
                expected[row] += abs(fractions[row, i] - (u < 0)) * huber / 5
    arguments = [tf.constant(values, tf.float32) for values in (theta, fractions, targets)]
    np.testing.assert_allclose(quantile_huber_loss(*arguments), expected, rtol=1e-5)


@pytest.mark.parametrize(("target", "sign"), [(5.0, -1.0), (-5.0, 1.0)])
def test_the_gradient_moves_a_quantile_towards_its_target(target: float, sign: float) -> None:
    quantiles, targets = tf.zeros((1, 2)), tf.constant([[target]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([quantiles, targets])
        loss = quantile_huber_loss(quantiles, tf.constant(midpoints(2)[None]), targets)
    slopes = [0.25, 0.75] if target > 0 else [0.75, 0.25]
    np.testing.assert_allclose(tape.gradient(loss, quantiles), [[sign * slope for slope in slopes]])
    assert tape.gradient(loss, targets) is None


def test_the_minimum_is_the_distributions_quantile() -> None:
    """Of 0, 1, ..., 99 the quantile of fraction 0.9 is about 90, where the loss is least."""
    targets = tf.constant(np.arange(100, dtype=np.float32)[None])
    losses = [
        float(quantile_huber_loss(tf.constant([[float(x)]]), tf.constant([[0.9]]), targets)[0]) for x in range(100)
    ]
    assert abs(int(np.argmin(losses)) - 90) <= 1
