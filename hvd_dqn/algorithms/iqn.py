"""IQN (Dabney et al. 2018): quantiles of the return at random fractions, given to the network as an input."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import ops

from hvd_dqn.algorithms.base import Batch, Losses, Values
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.quantile import quantile_huber_loss
from hvd_dqn.algorithms.selection import of_valid, select_actions


class IQN:
    """Learns the return's quantile function; its mean over evenly spaced fractions is the action value."""

    outputs_per_action = 1
    takes_fractions = True
    takes_joints = False
    has_value_range = False
    native_rule: str | None = None

    def __init__(self, quantiles: int, double: bool) -> None:
        """Chooses the number of samples.

        Args:
          quantiles: fractions drawn for each prediction and for each target, N and N' of the paper.
          double: whether the online network chooses the target's action (van Hasselt et al. 2016).
        """
        self._samples = quantiles
        self._double = double

    def action_values(self, outputs: Any) -> tf.Tensor:
        """Returns the quantiles' means [B, A]."""
        return ops.mean(outputs, axis=2)

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Computes the quantile Huber loss over pairs of samples; see `Algorithm`.

        Dabney et al. (2018), "Implicit Quantile Networks", equation 3, https://arxiv.org/abs/1806.06923. The priority
        is the size of the mean TD error.
        """
        fractions, fractions_t = noise.uniform(self._samples), noise.uniform(self._samples)  # [B, N]
        targets = self._targets(online, target, batch, fractions_t)  # [B, N]
        quantiles = select_actions(online(batch.s_tm1, fractions), batch.a_tm1)  # [B, N]
        q = tf.reduce_mean(quantiles, axis=1)  # [B]
        loss = quantile_huber_loss(quantiles, fractions, targets)  # [B]
        return Losses(loss, tf.abs(tf.reduce_mean(targets, axis=1) - q), q)

    def _targets(self, online: Values, target: Values, batch: Batch, fractions: tf.Tensor) -> tf.Tensor:
        """Computes samples of the target distribution, float32 [B, N], at random fractions [B, N]."""
        q_t = of_valid(self.action_values((online if self._double else target)(batch.s_t)), batch.valid_t)  # [B, A]
        quantiles_t = select_actions(target(batch.s_t, fractions), tf.argmax(q_t, axis=1))  # [B, N]
        return batch.r_t[:, None] + batch.discount_t[:, None] * quantiles_t  # [B, N]
