"""Q-values for acting: in host memory where the network has passes there, by TensorFlow elsewhere."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from hvd_dqn.learner.graph_network import GraphNetwork
from hvd_dqn.learner.learner import Vector
from hvd_dqn.learner.parameters import tensor_of
from hvd_dqn.native.library import aligned_zeros
from hvd_dqn.native.numpy_mlp import NumpyMLP


class ActionValues(Protocol):
    """A network's values under the parameters loaded last."""

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values float32 [B, A] of observations [B, *observation_shape]."""


class HostActionValues:
    """The values of a network with passes in host memory."""

    def __init__(self, network: NumpyMLP, parameters: np.ndarray) -> None:
        """Wraps the forward pass.

        Args:
          network: its passes.
          parameters: float32 [P], whose contents it acts with; those loaded from elsewhere are copied to there, as
            fresh memory takes five times as long.
        """
        self._network = network
        self._own = parameters
        self._layers = network.affine(parameters)
        self._activations = network.activations(0, backward=False)

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""
        if parameters is not self._own:
            np.copyto(self._own, np.asarray(parameters))

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values."""
        if len(self._activations.q) != len(s):
            self._activations = self._network.activations(len(s), backward=False)
        return self._network.values(self._layers, self._network.features(s), self._activations)


class TensorFlowActionValues:
    """Any network's values, computed by TensorFlow."""

    def __init__(self, network: GraphNetwork, parameters: np.ndarray) -> None:
        """Wraps the forward pass; see `HostActionValues`."""
        self._network = network
        self._own, self._own_tensor = parameters, tensor_of(parameters)

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]; those in host memory as `HostActionValues`."""
        if isinstance(parameters, np.ndarray):
            if parameters is not self._own:
                np.copyto(self._own, parameters)
            self._parameters = self._own_tensor
        else:
            self._parameters = tf.identity(parameters)

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values."""
        return self._network.action_values(self._parameters, s)


def make_action_values(
    parameters: Vector, on_host: NumpyMLP | None, network: GraphNetwork, *, follow: bool
) -> ActionValues:
    """Chooses the faster way to act.

    Args:
      parameters: float32 [P], loaded to begin with.
      on_host: the network's passes in host memory, None where it has none.
      network: its passes in TensorFlow.
      follow: whether parameters in host memory are acted with where they lie, so that loading them again copies
        nothing; only for who acts while nobody changes them, and loads no others.
    """
    own = parameters if follow and isinstance(parameters, np.ndarray) else aligned_zeros(network.layout.total)
    values: ActionValues
    values = TensorFlowActionValues(network, own) if on_host is None else HostActionValues(on_host, own)
    values.load(parameters)
    return values
