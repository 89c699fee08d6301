"""Returns as quantiles: the loss that QR-DQN and IQN share."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.checks import check_ranks, check_same_leading_dim


def midpoints(count: int) -> np.ndarray:
    """Returns the fractions float32 [N] in the middle of N equal parts of [0, 1]."""
    return (np.arange(count, dtype=np.float32) + 0.5) / count


def quantile_huber_loss(quantiles: tf.Tensor, fractions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Computes the quantile Huber loss with threshold 1, summed over the quantiles, averaged over the targets.

    Dabney et al. (2018), "Distributional RL with Quantile Regression", equation 10, https://arxiv.org/abs/1710.10044.

    Args:
      quantiles: float32 [B, N], predictions.
      fractions: float32 [B, N] or [1, N], the fraction of each prediction.
      targets: float32 [B, M], samples of the target distribution; no gradient reaches them.

    Returns:
      float32 [B].

    Raises:
      ValueError: if a rank is not 2 or the B dimensions of quantiles and targets differ.
    """
    check_ranks(quantiles=(quantiles, 2), fractions=(fractions, 2), targets=(targets, 2))
    check_same_leading_dim(quantiles=quantiles, targets=targets)
    error = tf.stop_gradient(targets)[:, None, :] - quantiles[:, :, None]  # [B, N, M]
    magnitude = tf.abs(error)  # [B, N, M]
    quadratic = tf.minimum(magnitude, 1.0)  # [B, N, M]
    huber = 0.5 * tf.square(quadratic) + (magnitude - quadratic)  # [B, N, M]
    slope = tf.abs(fractions[:, :, None] - tf.cast(error < 0.0, tf.float32))  # [B, N, M]
    return tf.reduce_sum(tf.reduce_mean(slope * huber, axis=2), axis=1)  # [B]
