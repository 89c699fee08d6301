"""DecQN (Seyde et al. 2023): the value of an action is the mean over its joints of a value of each."""

from __future__ import annotations

import tensorflow as tf

from hvd_dqn.algorithms.base import Batch, Losses, Values
from hvd_dqn.algorithms.checks import check_ranks, check_same_leading_dim
from hvd_dqn.algorithms.losses import LOSSES
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.selection import of_valid, select_actions


class DecQN:
    """Q-learning of MultiDiscrete actions, with as many outputs as all joints have bins together."""

    outputs_per_action = 1
    takes_fractions = False
    takes_joints = True
    has_value_range = False
    native_rule: str | None = None

    def __init__(self, loss: str, double: bool) -> None:
        """Chooses the loss of the TD error.

        Args:
          loss: a name in `LOSSES`.
          double: whether the online network chooses the target's action, joint by joint.
        """
        self._loss = LOSSES[loss]
        self._double = double

    def action_values(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the network's outputs [B, J, A]: they are the values of each joint's bins."""
        return outputs

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Computes the loss of the TD error, target minus prediction; see `Algorithm`."""
        del noise
        q_t = target(batch.s_t)  # [B, J, A]
        targets = decoupled_targets(batch, q_t, online(batch.s_t) if self._double else q_t)  # [B]
        q = mean_over_joints(online(batch.s_tm1), batch.a_tm1)  # [B]
        td_error = targets - q  # [B]
        return Losses(self._loss(td_error), tf.abs(td_error), q)


def mean_over_joints(values: tf.Tensor, a: tf.Tensor) -> tf.Tensor:
    """Computes Q(s, a) = 1/J sum_j Q_j(s, a_j).

    Seyde et al. (2023), "Solving continuous control via Q-learning", equation 2, https://arxiv.org/abs/2210.12566.

    Args:
      values: float32 [B, J, A], the values of each joint's bins.
      a: integers [B, J], the bins taken.

    Returns:
      float32 [B]; the gradient reaches the bins taken alone.

    Raises:
      ValueError: if the ranks are not 3, 2 or the B dimensions differ.
    """
    check_ranks(values=(values, 3), a=(a, 2))
    check_same_leading_dim(values=values, a=a)
    each = select_actions(tf.reshape(values, [-1, values.shape[2]]), tf.reshape(a, [-1]))  # [B * J]
    return tf.reduce_mean(tf.reshape(each, [-1, values.shape[1]]), axis=1)  # [B]


def decoupled_targets(batch: Batch, q_t: tf.Tensor, q_t_selector: tf.Tensor) -> tf.Tensor:
    """Computes targets r + discount * 1/J sum_j Q_j(s_t, argmax_b selector_j(s_t, b)).

    Seyde et al. (2023), equation 3. The joints need no joint search: the maximum of a mean of terms that share no
    argument is the mean of their maxima.

    Args:
      batch: transitions [B]; the argmax takes valid bins alone.
      q_t: float32 [B, J, A], target-network values of s_t.
      q_t_selector: float32 [B, J, A], what chooses the bins: the online network's values with Double DQN, else `q_t`.

    Returns:
      float32 [B], targets; no gradient flows through them.

    Raises:
      ValueError: if the values are not three-dimensional or the B dimensions differ.
    """
    check_ranks(r_t=(batch.r_t, 1), q_t=(q_t, 3), q_t_selector=(q_t_selector, 3))
    check_same_leading_dim(r_t=batch.r_t, q_t=q_t, q_t_selector=q_t_selector)
    a_t = tf.argmax(of_valid(q_t_selector, batch.valid_t), axis=2)  # [B, J]
    return tf.stop_gradient(batch.r_t + batch.discount_t * mean_over_joints(q_t, a_t))  # [B]
