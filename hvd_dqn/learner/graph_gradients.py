"""Gradients of any network by a plain TensorFlow graph, for parameters that live in host memory.

On a CPU this is how convolutions learn: oneDNN multiplies, and the optimizer stays out of the graph, which would take
fresh memory for its results at every update.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvd_dqn.learner.graph_network import LEARNED_COLUMNS, GraphNetwork
from hvd_dqn.learner.learner import NUM_STATISTICS
from hvd_dqn.learner.parameters import tensor_of
from hvd_dqn.native.learner import CompiledGradients
from hvd_dqn.transition import Transition


class GraphGradients:
    """A `Gradients`."""

    calls_tensorflow = True
    compiled: CompiledGradients | None = None

    def __init__(
        self,
        network: GraphNetwork,
        online: np.ndarray,
        target: np.ndarray,
        vector: np.ndarray,
        *,
        batch_size_per_rank: int,
    ) -> None:
        """Compiles the graphs.

        Args:
          network: the network's passes.
          online: float32 [P], 64-byte aligned, the parameters to differentiate by.
          target: the target network's, likewise.
          vector: float32 [P + statistics + F], where the rank's part of the global vector goes.
          batch_size_per_rank: transitions per update on this rank, B.
        """
        self._online, self._target = tensor_of(online), tensor_of(target)
        self._vector = vector
        *self._parts, self._flags = np.split(vector, np.cumsum([*network.layout.sizes, NUM_STATISTICS]))
        columns, parameters = network.signature(batch_size_per_rank), tf.TensorSpec([network.layout.total], tf.float32)

        def local_parts(k: tf.Tensor, online: tf.Tensor, q_t: tf.Tensor, *columns: tf.Tensor) -> list[tf.Tensor]:
            s_tm1, a_tm1, r_t, terminated, s_t = (column[k] for column in columns)
            return network.local_parts(online, s_tm1, a_tm1, r_t, terminated, s_t, q_t[k])

        values_of_all = tf.function(network.values_of_all, autograph=False)
        self._values_of_all = values_of_all.get_concrete_function(parameters, columns[-1])
        q_t = tf.TensorSpec(self._values_of_all.output_shapes, tf.float32)
        self._local_parts = tf.function(local_parts, autograph=False).get_concrete_function(
            tf.TensorSpec([], tf.int32), parameters, q_t, *columns
        )

    def prepare(self, batches: Transition, flags: np.ndarray) -> None:
        """Takes the batches and computes the target network's values of all."""
        columns = [tf.constant(getattr(batches, column)) for column in LEARNED_COLUMNS]
        self._rest = (self._values_of_all(self._target, columns[-1]), *columns)
        self._flags[:] = flags

    def compute(self, k: int) -> np.ndarray:
        """Computes this rank's part of the global vector."""
        # Joined here: the graph would take fresh memory for the whole.
        for part, computed in zip(
            self._parts, self._local_parts(tf.constant(k), self._online, *self._rest), strict=True
        ):
            np.copyto(part, np.asarray(computed))  # not numpy(), which would copy, too
        return self._vector
