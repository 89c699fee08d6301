"""QR-DQN (Dabney et al. 2018): fixed quantiles of the return, learned by quantile regression."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import ops

from hvd_dqn.algorithms.base import Batch, Losses, Values
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.quantile import midpoints, quantile_huber_loss
from hvd_dqn.algorithms.selection import of_valid, select_actions


class QRDQN:
    """Learns N quantiles of the return; their mean is the action value."""

    takes_fractions = False
    takes_joints = False
    has_value_range = False
    native_rule: str | None = None

    def __init__(self, quantiles: int, double: bool) -> None:
        """Chooses the fractions.

        Args:
          quantiles: their number.
          double: whether the online network chooses the target's action (van Hasselt et al. 2016).
        """
        self.outputs_per_action = quantiles
        self._fractions = midpoints(quantiles)[None]  # [1, N]
        self._double = double

    def action_values(self, outputs: Any) -> tf.Tensor:
        """Returns the quantiles' means [B, A]."""
        return ops.mean(outputs, axis=2)

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Computes the quantile Huber loss; see `Algorithm`.

        The priority is the size of the mean TD error, which does not depend on the number of quantiles.
        """
        del noise
        outputs_t = target(batch.s_t)  # [B, A, N]
        chooser = online(batch.s_t) if self._double else outputs_t  # [B, A, N]
        a_t = tf.argmax(of_valid(self.action_values(chooser), batch.valid_t), axis=1)  # [B]
        targets = batch.r_t[:, None] + batch.discount_t[:, None] * select_actions(outputs_t, a_t)  # [B, N]
        quantiles = select_actions(online(batch.s_tm1), batch.a_tm1)  # [B, N]
        q = tf.reduce_mean(quantiles, axis=1)  # [B]
        loss = quantile_huber_loss(quantiles, tf.constant(self._fractions), targets)  # [B]
        return Losses(loss, tf.abs(tf.reduce_mean(targets, axis=1) - q), q)
