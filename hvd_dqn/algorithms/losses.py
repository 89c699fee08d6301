"""Losses of a temporal-difference error, one value per transition."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def squared_loss(td_error: tf.Tensor) -> tf.Tensor:
    """Computes (target - Q)^2 without the factor one half, as Keras' mean squared error does.

    Args:
      td_error: float32 [B], target minus prediction.

    Returns:
      float32 [B].
    """
    return tf.square(td_error)  # [B]


def huber_loss(td_error: tf.Tensor) -> tf.Tensor:
    """Computes the Huber loss with threshold 1: quadratic inside [-1, 1], linear outside.

    Huber (1964); its gradient is the clipped TD error of Mnih et al. (2015), Methods, "Training algorithm".

    Args:
      td_error: float32 [B], target minus prediction.

    Returns:
      float32 [B].
    """
    magnitude = tf.abs(td_error)  # [B]
    quadratic = tf.minimum(magnitude, 1.0)  # [B]
    return 0.5 * tf.square(quadratic) + (magnitude - quadratic)  # [B]


LOSSES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {"mse": squared_loss, "huber": huber_loss}
