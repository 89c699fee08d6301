"""Returns as categorical distributions over fixed values: what C51 and HL-Gauss share."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from hvd_dqn.algorithms.checks import check_ranks, check_same_leading_dim


class CategoricalValues:
    """What the two algorithms have in common: atoms, and action values as means of distributions over them."""

    takes_fractions = False
    takes_joints = False
    has_value_range = True
    native_rule: str | None = None

    def __init__(self, atoms: int, value_min: float, value_max: float, double: bool) -> None:
        """Places the atoms.

        Args:
          atoms: their number.
          value_min: value of the lowest.
          value_max: value of the highest.
          double: whether the online network chooses the target's action (van Hasselt et al. 2016).
        """
        self.outputs_per_action = atoms
        self._atom_values = support(value_min, value_max, atoms)
        self._double = double

    def action_values(self, outputs: Any) -> tf.Tensor:
        """Returns the distributions' means [B, A]."""
        return expected_value(outputs, self._atom_values)


def support(value_min: float, value_max: float, atoms: int) -> np.ndarray:
    """Returns the atoms' values, float32 [Z], evenly spaced from `value_min` to `value_max`."""
    return np.linspace(value_min, value_max, atoms, dtype=np.float32)


def expected_value(logits: tf.Tensor, atom_values: np.ndarray) -> tf.Tensor:
    """Computes the means of categorical distributions.

    Args:
      logits: float32 [..., Z].
      atom_values: float32 [Z].

    Returns:
      float32 [...].
    """
    return ops.sum(ops.softmax(logits) * atom_values, axis=-1)


def cross_entropy(probabilities: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the cross-entropy of predicted logits with target probabilities; no gradient reaches the targets.

    Args:
      probabilities: float32 [B, Z], targets that sum to one.
      logits: float32 [B, Z], predictions.

    Returns:
      float32 [B].

    Raises:
      ValueError: if a rank is not 2 or the B dimensions differ.
    """
    check_ranks(probabilities=(probabilities, 2), logits=(logits, 2))
    check_same_leading_dim(probabilities=probabilities, logits=logits)
    return -tf.reduce_sum(tf.stop_gradient(probabilities) * tf.nn.log_softmax(logits), axis=1)  # [B]
