"""Munchausen IQN (Vieillard et al. 2020, section 3): IQN's loss on soft targets with a log-policy bonus."""

from __future__ import annotations

import tensorflow as tf

from hvd_dqn.algorithms.base import Batch, Values
from hvd_dqn.algorithms.iqn import IQN
from hvd_dqn.algorithms.munchausen import munchausen_rewards, policy


class MunchausenIQN(IQN):
    """Learns the quantile function of the soft return."""

    def __init__(
        self, quantiles: int, munchausen_bonus: float, munchausen_temperature: float, munchausen_floor: float
    ) -> None:
        """Takes the constants of the target.

        Args:
          quantiles: fractions drawn for each prediction and for each target, N and N' of IQN.
          munchausen_bonus: alpha, factor of the log-policy.
          munchausen_temperature: tau, of the softmax policy.
          munchausen_floor: l_0, least value of tau * log pi.
        """
        super().__init__(quantiles, double=False)
        self._bonus, self._temperature, self._floor = munchausen_bonus, munchausen_temperature, munchausen_floor

    def _targets(self, online: Values, target: Values, batch: Batch, fractions: tf.Tensor) -> tf.Tensor:
        """Computes samples of the soft target, whose policies are those of the target network's mean values."""
        del online
        q_tm1, q_t = self.action_values(target(batch.s_tm1)), self.action_values(target(batch.s_t))  # [B, A]
        rewards = munchausen_rewards(batch, q_tm1, self._bonus, self._temperature, self._floor)  # [B]
        policy_t, log_policy_t = policy(q_t, batch.valid_t, self._temperature)  # [B, A] each
        soft = target(batch.s_t, fractions) - log_policy_t[:, :, None]  # [B, A, N]
        soft_t = tf.reduce_sum(policy_t[:, :, None] * soft, axis=1)  # [B, N]
        return tf.stop_gradient(rewards[:, None] + batch.discount_t[:, None] * soft_t)  # [B, N]
