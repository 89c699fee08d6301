"""One rank's part of the global vector of an update: gradient, statistics, signals and largest weights.

Every learner that computes with TensorFlow builds it into its graph.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import tensorflow as tf

from hvd_dqn.algorithms.base import Algorithm, Batch
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.learner import Clock, StepSettings, no_clock


class Compilation(NamedTuple):
    """How the graph is built."""

    jit_compile: bool  # whether XLA compiles the gradient
    loss_scale: float = 1.0
    """Power of two that the loss is multiplied by while gradients pass through layers of half precision,
    Micikevicius et al. (2018), section 3.2."""
    seed: int = 0  # of the noise


class UpdateParts(NamedTuple):
    """What a learner's updates are built from."""

    network: FlatNetwork
    algorithm: Algorithm  # computes the loss
    settings: StepSettings
    compilation: Compilation
    action_shape: tuple[int, ...] = ()  # of one action
    clock: Clock = no_clock  # receives the seconds of each phase; on a GPU, of its launch


class LocalVector:
    """Computes a rank's part of the global vector of one update."""

    def __init__(self, parts: UpdateParts) -> None:
        """Takes what the graph is built from."""
        self.layout = parts.network.layout
        self._network, self._algorithm = parts.network, parts.algorithm
        self._settings, self._compilation = parts.settings, parts.compilation
        self._action_shape = parts.action_shape

    def __call__(
        self,
        number: tf.Tensor,
        online: tf.Tensor,
        target: tf.Tensor,
        signals: tf.Tensor,
        weights: tf.Tensor,
        *columns: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the vector; sums over the local batch are divided by the GLOBAL batch size.

        So the sum over ranks is exactly the mean over the global batch, however unevenly the batch is shared.

        Args:
          number: int32 scalar, the update's number, from which its noise is drawn.
          online: float32 [P].
          target: float32 [P].
          signals: float32 [F].
          weights: float32 [B], factors of the transitions' losses.
          *columns: of the batch, [B, ...] each.

        Returns:
          float32 [P + statistics + F], 2 W more where losses are weighted, and the transitions' priorities [B].
        """
        settings, scale = self._settings, self._compilation.loss_scale
        rows, batch_size = settings.batch_size_per_rank, settings.global_batch_size
        noise = Noise(self._compilation.seed, number, settings.first_row, rows, batch_size)
        s_tm1, a_tm1, r_t, discount_t, s_t = columns
        (s_tm1, valid_tm1), (s_t, valid_t) = self._network.unpack(s_tm1), self._network.unpack(s_t)
        batch = Batch(s_tm1, a_tm1, r_t, discount_t, s_t, valid_tm1, valid_t)
        parameters = self.layout.split(online)
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            losses = self._algorithm.loss(
                partial(self._network.forward, self._network.weights(parameters, noise)),
                partial(self._network.forward, self._network.weights(self.layout.split(target), noise)),
                batch,
                noise,
            )  # [B] each
            loss = tf.reduce_sum(weights * losses.loss) / batch_size
            scaled_loss = loss * scale if scale != 1.0 else loss
        # Zeros for a weight that this loss does not use.
        unused = tf.UnconnectedGradients.ZERO
        gradients = [tf.reshape(part, [-1]) for part in tape.gradient(scaled_loss, parameters, None, unused)]
        if scale != 1.0:
            gradients = [gradient / scale for gradient in gradients]
        means = [tf.reduce_sum(values) / batch_size for values in (losses.priority, losses.q)]
        vector = [*gradients, tf.stack([loss, *means]), signals]
        if settings.weighted:
            largest = tf.stack([tf.reduce_max(weights), tf.reduce_max(losses.priority)])
            own_slot = tf.one_hot(settings.rank, settings.size)  # [W]
            vector.append(tf.reshape(largest[:, None] * own_slot, [-1]))
        return tf.concat(vector, axis=0), losses.priority

    def batch_signature(self, *updates: int | None) -> list[tf.TensorSpec]:
        """Returns the specification of weights and columns, [*updates, B, ...] each."""
        rows = [*updates, self._settings.batch_size_per_rank]
        number = tf.TensorSpec(rows, tf.float32)
        s = tf.TensorSpec([*rows, *self._network.stored_shape], self._network.observation_dtype)
        return [number, s, tf.TensorSpec([*rows, *self._action_shape], tf.int32), number, number, s]
