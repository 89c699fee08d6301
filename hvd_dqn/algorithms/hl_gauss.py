"""HL-Gauss (Farebrother et al. 2024): the expected return, learned by classification of a blurred target."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.base import Batch, Losses, Values
from hvd_dqn.algorithms.categorical import CategoricalValues, cross_entropy, expected_value
from hvd_dqn.algorithms.checks import check_ranks
from hvd_dqn.algorithms.dqn import one_step_targets
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.selection import select_actions

RELATIVE_WIDTH = 0.75
"""Standard deviation of the blurred target in widths of a bin, Farebrother et al. (2024), section 3.1."""


class HLGauss(CategoricalValues):
    """Learns a histogram whose mean is the action value; its target is a Gaussian around DQN's target."""

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Computes the cross-entropy with the blurred target; see `Algorithm`. The priority is the TD error's size."""
        del noise
        q_t = self.action_values(target(batch.s_t))  # [B, A]
        q_t_selector = self.action_values(online(batch.s_t)) if self._double else None  # [B, A]
        targets = one_step_targets(batch, q_t, q_t_selector)  # [B]
        logits = select_actions(online(batch.s_tm1), batch.a_tm1)  # [B, Z]
        q = expected_value(logits, self._atom_values)  # [B]
        loss = cross_entropy(gaussian_histogram(self._atom_values, targets), logits)  # [B]
        return Losses(loss, tf.abs(targets - q), q)


def gaussian_histogram(atom_values: np.ndarray, targets: tf.Tensor) -> tf.Tensor:
    """Integrates a Gaussian around each target over the bins around the atoms.

    Farebrother et al. (2024), "Stop Regressing", equation 3.5, https://arxiv.org/abs/2403.03950.

    Args:
      atom_values: float32 [Z], centres of the bins, evenly spaced.
      targets: float32 [B], means; those beyond the outermost centres count as these.

    Returns:
      float32 [B, Z], probabilities that sum to one. No gradient flows through them.

    Raises:
      ValueError: if `targets` is not one-dimensional.
    """
    check_ranks(targets=(targets, 1))
    width = atom_values[1] - atom_values[0]
    edges = np.append(atom_values - width / 2, atom_values[-1] + width / 2)  # [Z + 1]
    means = tf.clip_by_value(targets, atom_values[0], atom_values[-1])  # [B]
    below = tf.math.erf((edges - means[:, None]) / (math.sqrt(2.0) * RELATIVE_WIDTH * width))  # [B, Z + 1]
    masses = below[:, 1:] - below[:, :-1]  # [B, Z]
    return tf.stop_gradient(masses / (below[:, -1:] - below[:, :1]))  # [B, Z]
