"""Gradients of any network by a plain TensorFlow graph, for parameters that live in host memory.

On a CPU this is how convolutions learn: oneDNN multiplies, and the optimizer stays out of the graph, which would take
fresh memory for its results at every update.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvd_dqn.agent.graph_network import LEARNED_COLUMNS, GraphNetwork
from hvd_dqn.agent.host_learner import CompiledGradients
from hvd_dqn.transition import Transition


class GraphGradients:
    """A `Gradients`."""

    calls_tensorflow = True
    compiled: CompiledGradients | None = None

    def __init__(
        self, network: GraphNetwork, online: np.ndarray, target: np.ndarray, *, batch_size_per_rank: int, num_flags: int
    ) -> None:
        """Compiles the graphs.

        Args:
          network: the network's passes.
          online: float32 [P], 64-byte aligned, the parameters to differentiate by.
          target: the target network's, likewise.
          batch_size_per_rank: transitions per update on this rank, B.
          num_flags: F.
        """
        self._online, self._target = _tensor_of(online), _tensor_of(target)
        columns, flags = network.signature(batch_size_per_rank), tf.TensorSpec([num_flags], tf.float32)
        vector = tf.TensorSpec([network.layout.total], tf.float32)

        def local_vector(
            k: tf.Tensor, online: tf.Tensor, q_t: tf.Tensor, flags: tf.Tensor, *columns: tf.Tensor
        ) -> tf.Tensor:
            s_tm1, a_tm1, r_t, terminated, s_t = (column[k] for column in columns)
            return network.local_vector(online, s_tm1, a_tm1, r_t, terminated, s_t, q_t[k], flags)

        values_of_all = tf.function(network.values_of_all, autograph=False).get_concrete_function(vector, columns[-1])
        self._values_of_all = values_of_all
        q_t = tf.TensorSpec(values_of_all.output_shapes, tf.float32)
        self._local_vector = tf.function(local_vector, autograph=False).get_concrete_function(
            tf.TensorSpec([], tf.int32), vector, q_t, flags, *columns
        )

    def prepare(self, batches: Transition, flags: np.ndarray) -> None:
        """Takes the batches and computes the target network's values of all."""
        columns = [tf.constant(getattr(batches, column)) for column in LEARNED_COLUMNS]
        self._rest = (self._values_of_all(self._target, columns[-1]), tf.constant(flags, tf.float32), *columns)

    def compute(self, k: int) -> np.ndarray:
        """Computes this rank's part of the global vector."""
        # Not numpy(), which copies; the array keeps the tensor.
        return np.asarray(self._local_vector(tf.constant(k), self._online, *self._rest))


def _tensor_of(vector: np.ndarray) -> tf.Tensor:
    """Returns a tensor whose memory is the array's own: it shows what the array holds whenever it is read.

    TensorFlow computes in the memory of a tensor that nobody else holds; whoever keeps this one keeps it from that.

    Raises:
      ValueError: if TensorFlow took a copy, as it does of memory that is not aligned.
    """
    tensor = tf.experimental.dlpack.from_dlpack(vector.__dlpack__())
    if not np.shares_memory(np.asarray(tensor), vector):
        raise ValueError("TensorFlow copies this array: it takes over memory aligned to 64 bytes only")
    return tensor
