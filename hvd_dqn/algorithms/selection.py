"""Choosing actions by their values, and picking what a network gives for the actions chosen."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.checks import check_ranks, check_same_leading_dim


def of_valid(values: tf.Tensor, valid: tf.Tensor | None, others: float = -np.inf) -> tf.Tensor:
    """Keeps the values of valid actions, so that no maximum takes another.

    Args:
      values: float32 [B, A], or [B, J, A] where an action has several joints.
      valid: bool, of the same shape, which actions may be taken; None if all may.
      others: value of the actions that may not be taken: finite for a softmax, whose products would not be finite.

    Returns:
      float32, of the same shape.

    Raises:
      ValueError: if the ranks differ, or are not 2 or 3, or the B dimensions differ.
    """
    if valid is None:
        return values
    rank = 3 if values.shape.rank == 3 else 2
    check_ranks(values=(values, rank), valid=(valid, rank))
    check_same_leading_dim(values=values, valid=valid)
    return tf.where(valid, values, others)  # [B, A] or [B, J, A]


def select_actions(values: tf.Tensor, a: tf.Tensor) -> tf.Tensor:
    """Picks what belongs to the actions taken, by a product that XLA turns into one pass.

    Args:
      values: float32 [B, A], or [B, A, Z] where an action has several numbers.
      a: integers [B], actions in 0..A-1.

    Returns:
      float32 [B] or [B, Z]; the gradient reaches the chosen actions alone.

    Raises:
      ValueError: if the ranks are not 2 or 3, and 1, or the B dimensions differ.
    """
    check_ranks(values=(values, 3 if values.shape.rank == 3 else 2), a=(a, 1))
    check_same_leading_dim(values=values, a=a)
    chosen = tf.one_hot(a, values.shape[1], dtype=values.dtype)  # [B, A]
    if values.shape.rank == 3:
        chosen = chosen[:, :, None]  # [B, A, 1]
    return tf.reduce_sum(chosen * values, axis=1)  # [B] or [B, Z]
