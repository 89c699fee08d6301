"""Action values for acting and for evaluation."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.base import Algorithm
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.learner import Vector


class ActionValues(Protocol):
    """A network's action values under the parameters loaded last."""

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns action values float32 [B, A] of observations [B, *observation_shape]."""


class TensorFlowActionValues:
    """Any network's action values, computed by TensorFlow."""

    def __init__(self, network: FlatNetwork, algorithm: Algorithm, parameters: Vector, *, jit_compile: bool) -> None:
        """Compiles the forward pass.

        Args:
          network: the network.
          algorithm: finds the action values in the network's outputs.
          parameters: float32 [P], loaded to begin with.
          jit_compile: whether the pass is an XLA cluster.
        """

        def values(parameters: tf.Tensor, s: tf.Tensor) -> tf.Tensor:
            return algorithm.action_values(network(parameters, s))  # [B, A]

        self._values = tf.function(values, jit_compile=jit_compile, autograph=False, reduce_retracing=False)
        self._dtype = network.observation_dtype
        self.load(parameters)

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""
        self._parameters = tf.convert_to_tensor(parameters)

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns action values."""
        return self._values(self._parameters, tf.constant(s, self._dtype)).numpy()
