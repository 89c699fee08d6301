"""Action values for acting and for evaluation."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.base import Algorithm
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.graph_call import GraphCall
from hvd_dqn.learner.learner import Vector


class ActionValues(Protocol):
    """A network's action values under the parameters loaded last."""

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns action values float32 [B, A] of observations [B, *observation_shape]."""


class TensorFlowActionValues:
    """Any network's action values, computed by TensorFlow."""

    def __init__(self, network: FlatNetwork, algorithm: Algorithm, parameters: Vector) -> None:
        """Traces the forward pass, for any number of observations.

        Args:
          network: the network.
          algorithm: finds the action values in the network's outputs.
          parameters: float32 [P], loaded to begin with.
        """
        self._dtype = network.observation_dtype
        self._values = GraphCall(
            lambda parameters, s: [algorithm.action_values(network(parameters, s))],  # [B, A]
            [
                tf.TensorSpec([network.layout.total], tf.float32),
                tf.TensorSpec([None, *network.observation_shape], self._dtype),
            ],
            jit_compile=False,  # XLA costs more per call than it saves in a forward pass
        )
        self.load(parameters)

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""
        self._parameters = tf.convert_to_tensor(parameters)

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns action values."""
        (values,) = self._values(self._parameters, tf.constant(s, self._dtype))
        return values.numpy()
