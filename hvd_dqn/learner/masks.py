"""Takes observations and action masks apart, which environments pack into one array (hvd_dqn/envs/masks.py)."""

from __future__ import annotations

import math

import tensorflow as tf


def unpack(packed: tf.Tensor, observation_shape: tuple[int, ...], num_actions: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits observations and action masks.

    Args:
      packed: [B, n + A], of the observations' dtype.
      observation_shape: of one observation of n numbers; () for a category.
      num_actions: A.

    Returns:
      The observations [B, *observation_shape] and bool [B, A], which actions are valid. In a row of zeros all are: a
      rank that has a fault computes with such rows.
    """
    n = math.prod(observation_shape)
    rows = -1 if packed.shape[0] is None else packed.shape[0]
    observations = tf.reshape(packed[:, :n], [rows, *observation_shape])  # [B, *observation_shape]
    valid = tf.cast(packed[:, n : n + num_actions], tf.bool)  # [B, A]
    return observations, valid | ~tf.reduce_any(valid, axis=1, keepdims=True)  # [B, A]
