"""C51 (Bellemare et al. 2017): the distribution of the return over fixed atoms, learned by cross-entropy."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.base import Batch, Losses, Values
from hvd_dqn.algorithms.categorical import CategoricalValues, cross_entropy, expected_value
from hvd_dqn.algorithms.checks import check_ranks, check_same_leading_dim
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.selection import of_valid, select_actions


class C51(CategoricalValues):
    """Learns the return's distribution over atoms; its mean is the action value."""

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Computes the cross-entropy with the projected target distribution; see `Algorithm`.

        The priority is the loss, as in Hessel et al. (2018), "Rainbow".
        """
        del noise
        outputs_t = target(batch.s_t)  # [B, A, Z]
        chooser = online(batch.s_t) if self._double else outputs_t  # [B, A, Z]
        a_t = tf.argmax(of_valid(self.action_values(chooser), batch.valid_t), axis=1)  # [B]
        p_t = tf.nn.softmax(select_actions(outputs_t, a_t))  # [B, Z]
        targets = project(self._atom_values, batch.r_t, batch.discount_t, p_t)  # [B, Z]
        logits = select_actions(online(batch.s_tm1), batch.a_tm1)  # [B, Z]
        loss = cross_entropy(targets, logits)  # [B]
        return Losses(loss, loss, expected_value(logits, self._atom_values))


def project(atom_values: np.ndarray, r_t: tf.Tensor, discount_t: tf.Tensor, p_t: tf.Tensor) -> tf.Tensor:
    """Projects the distribution of r + discount * z onto the atoms, each mass split between its two neighbours.

    Bellemare, Dabney & Munos (2017), Algorithm 1, https://arxiv.org/abs/1707.06887.

    Args:
      atom_values: float32 [Z], evenly spaced.
      r_t: float32 [B].
      discount_t: float32 [B].
      p_t: float32 [B, Z], probabilities of the atoms in the next state.

    Returns:
      float32 [B, Z], probabilities; values beyond the ends count as the ends. No gradient flows through them.

    Raises:
      ValueError: if the ranks are not 1, 1, 2 or the B dimensions differ.
    """
    check_ranks(r_t=(r_t, 1), discount_t=(discount_t, 1), p_t=(p_t, 2))
    check_same_leading_dim(r_t=r_t, discount_t=discount_t, p_t=p_t)
    moved = r_t[:, None] + discount_t[:, None] * atom_values  # [B, Z]
    moved = tf.clip_by_value(moved, atom_values[0], atom_values[-1])  # [B, Z]
    place = (moved - atom_values[0]) / (atom_values[1] - atom_values[0])  # [B, Z], in atoms from the lowest
    # A product, though only two of each row's Z parts are not zero: XLA is slow at sums into places that are computed.
    parts = tf.nn.relu(1.0 - tf.abs(place[:, :, None] - tf.range(len(atom_values), dtype=tf.float32)))  # [B, Z, Z]
    projected = tf.linalg.matvec(parts, p_t, transpose_a=True)  # [B, Z]
    return tf.stop_gradient(projected)
