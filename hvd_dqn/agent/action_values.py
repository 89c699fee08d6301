"""Q-values for acting: NumPy where the network is a small MLP, TensorFlow in batches elsewhere."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from hvd_dqn.agent.graph_network import GraphNetwork
from hvd_dqn.agent.learner import Vector
from hvd_dqn.agent.numpy_mlp import NumpyMLP
from hvd_dqn.agent.parameters import tensor_of
from hvd_dqn.maths.kernels import aligned_zeros


class ActionValues(Protocol):
    """A network's values under the parameters loaded last."""

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values float32 [B, A] of observations [B, *observation_shape]."""


class NumpyActionValues:
    """An MLP's values, computed by NumPy."""

    def __init__(self, mlp: NumpyMLP) -> None:
        """Wraps the forward pass."""
        self._mlp = mlp
        self._activations = mlp.activations(0)

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""
        self._layers = self._mlp.affine(np.array(parameters))

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values."""
        if len(self._activations.q) != len(s):
            self._activations = self._mlp.activations(len(s))
        return self._mlp.forward(self._layers, self._mlp.features(s), self._activations).copy()


class TensorFlowActionValues:
    """Any network's values, computed by TensorFlow."""

    def __init__(self, network: GraphNetwork) -> None:
        """Wraps the forward pass."""
        self._network = network
        self._own = aligned_zeros(network.layout.total)  # [P]
        self._own_tensor = tensor_of(self._own)

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]; those in host memory by a copy in place, as fresh memory takes five times as long."""
        if isinstance(parameters, np.ndarray):
            np.copyto(self._own, parameters)
            self._parameters = self._own_tensor
        else:
            self._parameters = tf.identity(parameters)

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values."""
        return self._network.action_values(self._parameters, s)


def make_action_values(parameters: Vector, mlp: NumpyMLP | None, network: GraphNetwork) -> ActionValues:
    """Chooses the faster way to act.

    Args:
      parameters: float32 [P], loaded to begin with.
      mlp: the network's passes in NumPy, None for networks that have none.
      network: its passes in TensorFlow.
    """
    values: ActionValues = NumpyActionValues(mlp) if mlp is not None else TensorFlowActionValues(network)
    values.load(parameters)
    return values
