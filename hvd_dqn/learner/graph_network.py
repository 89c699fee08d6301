"""A network's passes in TensorFlow: its values and its Q-learning gradient, as functions of flat parameters."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.losses import LOSSES
from hvd_dqn.algorithms.targets import chosen_action_values, double_q_targets, td_targets
from hvd_dqn.learner.parameters import ParameterLayout

LEARNED_COLUMNS = ("s_tm1", "a_tm1", "r_t", "terminated", "s_t")
"""The columns of a Transition that a one-step target needs: a truncated s_t still bootstraps."""


class GraphNetwork:
    """The passes of a Keras model; what lies in its own variables is of no use."""

    def __init__(
        self,
        network: keras.Model,
        *,
        loss: str,
        gamma: float,
        double_dqn: bool,
        global_batch_size: int,
        loss_scale: float = 1.0,
    ) -> None:
        """Takes the rule by which it learns.

        Args:
          network: the Q-network.
          loss: a name in `LOSSES`.
          gamma: discount per env step.
          double_dqn: whether the online network chooses the target's action.
          global_batch_size: transitions per update over all ranks.
          loss_scale: power of two that the loss is multiplied by while gradients pass through layers of half
            precision, Micikevicius et al. (2018), section 3.2.
        """
        self.layout = ParameterLayout(network)
        self.observation_shape, self.observation_dtype = network.input_shape[1:], network.inputs[0].dtype
        self._network = network
        self._loss = LOSSES[loss]
        self._gamma = gamma
        self._double_dqn = double_dqn
        self._global_batch_size = global_batch_size
        self._loss_scale = loss_scale

    def signature(self, batch: int) -> list[tf.TensorSpec]:
        """Returns the specification of K batches' columns, in the order of `LEARNED_COLUMNS`; K is left open."""
        s = tf.TensorSpec([None, batch, *self.observation_shape], self.observation_dtype)
        return [s, *(tf.TensorSpec([None, batch], dtype) for dtype in (tf.int32, tf.float32, tf.bool)), s]

    def action_values(self, parameters: tf.Tensor, s: np.ndarray) -> np.ndarray:
        """Computes Q-values float32 [B, A] of observations with the given parameters [P]."""
        return self._compiled_values(parameters, tf.constant(s)).numpy()

    @tf.function(reduce_retracing=True, autograph=False)
    def _compiled_values(self, parameters: tf.Tensor, s: tf.Tensor) -> tf.Tensor:
        return self._forward(self.layout.split(parameters), s)

    def _forward(self, weights: list[tf.Tensor], s: tf.Tensor) -> tf.Tensor:
        """Returns Q-values [B, A]."""
        q, _ = self._network.stateless_call(weights, self._network.non_trainable_variables, s)
        return q

    def values_of_all(self, target: tf.Tensor, s_t: tf.Tensor) -> tf.Tensor:
        """Returns the target network's values of all K batches [K, B, A]: it stays the same for all of them."""
        rows = tf.reshape(s_t, [-1, *s_t.shape[2:]])  # [K * B, ...]
        q_t = self._forward(self.layout.split(target), rows)  # [K * B, A]
        return tf.reshape(q_t, [-1, s_t.shape[1], q_t.shape[1]])

    def local_vector(self, flags: tf.Tensor, *inputs: tf.Tensor) -> tf.Tensor:
        """Returns this rank's part of the global vector [P + statistics + F]; see `local_parts` for the inputs."""
        return tf.concat([*self.local_parts(*inputs), flags], axis=0)

    def local_parts(
        self,
        online: tf.Tensor,
        s_tm1: tf.Tensor,
        a_tm1: tf.Tensor,
        r_t: tf.Tensor,
        terminated: tf.Tensor,
        s_t: tf.Tensor,
        q_t: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Returns the gradient by each weight, flat, in the order of the layout, and the statistics.

        Sums over the local batch are divided by the GLOBAL batch size, so that the sum over ranks is exactly the
        mean over the global batch, however unevenly the batch is shared.
        """
        weights = self.layout.split(online)
        discount_t = self._gamma * (1.0 - tf.cast(terminated, tf.float32))  # [B]
        if self._double_dqn:
            targets = double_q_targets(r_t, discount_t, q_t, self._forward(weights, s_t))  # [B]
        else:
            targets = td_targets(r_t, discount_t, q_t)  # [B]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            q_a = chosen_action_values(self._forward(weights, s_tm1), a_tm1)  # [B]
            td_error = targets - q_a  # [B]
            loss = tf.reduce_sum(self._loss(td_error)) / self._global_batch_size
            scaled_loss = loss if self._loss_scale == 1.0 else loss * self._loss_scale
        gradients = tape.gradient(scaled_loss, weights)
        statistics = [loss, tf.reduce_sum(tf.abs(td_error)), tf.reduce_sum(q_a)]
        statistics[1:] = [value / self._global_batch_size for value in statistics[1:]]
        flat = [tf.reshape(gradient, [-1]) for gradient in gradients]
        if self._loss_scale != 1.0:
            flat = [gradient / self._loss_scale for gradient in flat]
        return [*flat, tf.stack(statistics)]
