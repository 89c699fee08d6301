"""Munchausen DQN (Vieillard et al. 2020): a soft target, and a bonus for the log-probability of the action taken."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hvd_dqn.algorithms.base import Batch, Losses, Values
from hvd_dqn.algorithms.checks import check_ranks, check_same_leading_dim
from hvd_dqn.algorithms.losses import LOSSES
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.selection import of_valid, select_actions

_WORTHLESS = -1e9
"""Value of an action that is not valid: no policy takes it, and its log-probability is finite."""


class MunchausenDQN:
    """Soft Q-learning with the scaled log-policy added to the reward."""

    outputs_per_action = 1
    takes_fractions = False
    takes_joints = False
    has_value_range = False
    native_rule: str | None = None

    def __init__(
        self, loss: str, munchausen_bonus: float, munchausen_temperature: float, munchausen_floor: float
    ) -> None:
        """Takes the constants of the target.

        Args:
          loss: a name in `LOSSES`.
          munchausen_bonus: alpha, factor of the log-policy.
          munchausen_temperature: tau, of the softmax policy.
          munchausen_floor: l_0, least value of tau * log pi.
        """
        self._loss = LOSSES[loss]
        self._bonus, self._temperature, self._floor = munchausen_bonus, munchausen_temperature, munchausen_floor

    def action_values(self, outputs: Any) -> tf.Tensor:
        """Returns the network's outputs [B, A]."""
        return outputs

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Computes the loss of the TD error; see `Algorithm`. The target network gives both policies."""
        del noise
        targets = munchausen_targets(
            batch,
            target(batch.s_tm1),
            target(batch.s_t),
            bonus=self._bonus,
            temperature=self._temperature,
            floor=self._floor,
        )  # [B]
        q = select_actions(online(batch.s_tm1), batch.a_tm1)  # [B]
        td_error = targets - q  # [B]
        return Losses(self._loss(td_error), tf.abs(td_error), q)


def munchausen_targets(
    batch: Batch,
    q_tm1: tf.Tensor,
    q_t: tf.Tensor,
    *,
    bonus: float,
    temperature: float,
    floor: float,
) -> tf.Tensor:
    """Computes r + alpha [tau log pi(a|s_tm1)]_{l_0}^0 + discount * sum_a pi(a|s_t) (q_t(a) - tau log pi(a|s_t)).

    Vieillard, Pietquin & Geist (2020), equation 1 and section B.1, https://arxiv.org/abs/2007.14430; pi is the softmax
    of the target network's values over tau.

    Args:
      batch: transitions [B]; the policies take valid actions alone.
      q_tm1: float32 [B, A], target-network values of s_tm1.
      q_t: float32 [B, A], target-network values of s_t.
      bonus: alpha.
      temperature: tau.
      floor: l_0.

    Returns:
      float32 [B], targets; no gradient flows through them.

    Raises:
      ValueError: if the values are not two-dimensional or the B dimensions differ.
    """
    check_ranks(r_t=(batch.r_t, 1), q_tm1=(q_tm1, 2), q_t=(q_t, 2))
    check_same_leading_dim(r_t=batch.r_t, q_tm1=q_tm1, q_t=q_t)
    rewards = munchausen_rewards(batch, q_tm1, bonus, temperature, floor)  # [B]
    policy_t, log_policy_t = policy(q_t, batch.valid_t, temperature)  # [B, A] each
    soft_value_t = tf.reduce_sum(policy_t * (q_t - log_policy_t), axis=1)  # [B]
    return tf.stop_gradient(rewards + batch.discount_t * soft_value_t)  # [B]


def munchausen_rewards(batch: Batch, q_tm1: tf.Tensor, bonus: float, temperature: float, floor: float) -> tf.Tensor:
    """Computes r + alpha [tau log pi(a|s_tm1)]_{l_0}^0, float32 [B]; see `munchausen_targets`."""
    _, log_policy = policy(q_tm1, batch.valid_tm1, temperature)  # [B, A]
    taken = select_actions(log_policy, batch.a_tm1)  # [B]
    return batch.r_t + bonus * tf.clip_by_value(taken, floor, 0.0)  # [B]


def policy(q: tf.Tensor, valid: tf.Tensor | None, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes softmax(q / tau) over valid actions, float32 [B, A], and tau times its logarithm, float32 [B, A].

    Args:
      q: float32 [B, A].
      valid: bool [B, A], None if all are valid.
      temperature: tau.
    """
    q = of_valid(q, valid, _WORTHLESS)  # [B, A]
    return tf.nn.softmax(q / temperature), scaled_log_policy(q, temperature)


def scaled_log_policy(q: tf.Tensor, temperature: float) -> tf.Tensor:
    """Computes tau log softmax(q / tau), float32 [B, A], without the cancellation of large values."""
    advantage = q - tf.reduce_max(q, axis=1, keepdims=True)  # [B, A]
    normaliser = tf.reduce_logsumexp(advantage / temperature, axis=1, keepdims=True)  # [B, 1]
    return advantage - temperature * normaliser  # [B, A]
