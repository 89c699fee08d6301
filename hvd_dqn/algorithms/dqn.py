"""DQN (Mnih et al. 2015) and Double DQN (van Hasselt et al. 2016): targets, loss, and the class that joins them."""

from __future__ import annotations

import tensorflow as tf

from hvd_dqn.algorithms.base import Batch, Losses, Values
from hvd_dqn.algorithms.checks import check_ranks, check_same_leading_dim
from hvd_dqn.algorithms.losses import LOSSES
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.selection import of_valid, select_actions


class DQN:
    """Q-learning with a target network; with `double` the online network chooses the action that is valued."""

    outputs_per_action = 1
    takes_fractions = False
    takes_joints = False
    has_value_range = False

    def __init__(self, loss: str, double: bool) -> None:
        """Chooses the loss of the TD error.

        Args:
          loss: a name in `LOSSES`.
          double: whether the online network chooses the target's action.
        """
        self._loss = LOSSES[loss]
        self._double = double
        self.native_rule: str | None = "double_dqn" if double else "dqn"

    def action_values(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the network's outputs [B, A]: they are the action values."""
        return outputs

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Computes the loss of the TD error, target minus prediction; see `Algorithm`."""
        del noise
        targets = one_step_targets(batch, target(batch.s_t), online(batch.s_t) if self._double else None)  # [B]
        q = select_actions(online(batch.s_tm1), batch.a_tm1)  # [B]
        td_error = targets - q  # [B]
        return Losses(self._loss(td_error), tf.abs(td_error), q)


def one_step_targets(batch: Batch, q_t: tf.Tensor, q_t_selector: tf.Tensor | None) -> tf.Tensor:
    """Computes the targets of a batch: Double DQN's if there is a selector; see the two functions below."""
    if q_t_selector is None:
        return td_targets(batch.r_t, batch.discount_t, of_valid(q_t, batch.valid_t))  # [B]
    return double_q_targets(batch.r_t, batch.discount_t, q_t, of_valid(q_t_selector, batch.valid_t))  # [B]


def td_targets(r_t: tf.Tensor, discount_t: tf.Tensor, q_t: tf.Tensor) -> tf.Tensor:
    """Computes one-step Q-learning targets r + discount * max_a Q(s_t, a).

    Mnih et al. (2015), Algorithm 1, https://www.nature.com/articles/nature14236.

    Args:
      r_t: float32 [B], reward received on entering s_t.
      discount_t: float32 [B], gamma, or 0 where s_t is terminal (a truncated s_t keeps gamma).
      q_t: float32 [B, A], target-network action values of s_t.

    Returns:
      float32 [B], targets; no gradient flows through them.

    Raises:
      ValueError: if the ranks are not 1, 1, 2 or the B dimensions differ.
    """
    check_ranks(r_t=(r_t, 1), discount_t=(discount_t, 1), q_t=(q_t, 2))
    check_same_leading_dim(r_t=r_t, discount_t=discount_t, q_t=q_t)
    return tf.stop_gradient(r_t + discount_t * tf.reduce_max(q_t, axis=1))  # [B]


def double_q_targets(r_t: tf.Tensor, discount_t: tf.Tensor, q_t: tf.Tensor, q_t_selector: tf.Tensor) -> tf.Tensor:
    """Computes Double-DQN targets r + discount * Q_target(s_t, argmax_a Q_online(s_t, a)).

    van Hasselt, Guez & Silver (2016), equation 4, https://arxiv.org/abs/1509.06461.

    Args:
      r_t: float32 [B], reward received on entering s_t.
      discount_t: float32 [B], gamma, or 0 where s_t is terminal (a truncated s_t keeps gamma).
      q_t: float32 [B, A], target-network action values of s_t: what the chosen action is worth.
      q_t_selector: float32 [B, A], online-network action values of s_t: they choose the action.

    Returns:
      float32 [B], targets; no gradient flows through them.

    Raises:
      ValueError: if the ranks are not 1, 1, 2, 2 or the B dimensions differ.
    """
    check_ranks(r_t=(r_t, 1), discount_t=(discount_t, 1), q_t=(q_t, 2), q_t_selector=(q_t_selector, 2))
    check_same_leading_dim(r_t=r_t, discount_t=discount_t, q_t=q_t, q_t_selector=q_t_selector)
    chosen = select_actions(q_t, tf.argmax(q_t_selector, axis=1))  # [B]
    return tf.stop_gradient(r_t + discount_t * chosen)  # [B]
