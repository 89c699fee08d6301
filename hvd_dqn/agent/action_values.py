"""Q-values for acting: NumPy where the network is a small MLP, TensorFlow in batches elsewhere."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from hvd_dqn.agent.learner import Learner
from hvd_dqn.agent.numpy_mlp import NumpyMLP


class ActionValues(Protocol):
    """A network's values under the parameters loaded last."""

    def load(self, parameters: tf.Tensor) -> None:
        """Takes parameters [P]."""

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values float32 [B, A] of observations [B, *observation_shape]."""


class NumpyActionValues:
    """An MLP's values, computed by NumPy."""

    def __init__(self, mlp: NumpyMLP) -> None:
        """Wraps the forward pass."""
        self._mlp = mlp

    def load(self, parameters: tf.Tensor) -> None:
        """Takes parameters [P]."""
        self._mlp.load(parameters.numpy())

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values."""
        return self._mlp.action_values(s)


class TensorFlowActionValues:
    """Any network's values, computed by TensorFlow."""

    def __init__(self, learner: Learner) -> None:
        """Uses the learner's forward pass, not its parameters."""
        self._learner = learner
        self._parameters = learner.online

    def load(self, parameters: tf.Tensor) -> None:
        """Takes parameters [P]."""
        self._parameters = parameters

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values."""
        return self._learner.action_values(self._parameters, s)


def make_action_values(kind: str, learner: Learner, num_categories: int, observation_dtype: np.dtype) -> ActionValues:
    """Chooses the faster way for a network of this kind, with the learner's online parameters loaded.

    Args:
      kind: "mlp" or "cnn".
      learner: owner of the parameter layout and of the TensorFlow forward pass.
      num_categories: values of a Discrete observation, 0 for others.
      observation_dtype: dtype of one observation.
    """
    values: ActionValues
    if kind == "mlp":
        values = NumpyActionValues(NumpyMLP(learner.layout, num_categories, observation_dtype))
    else:
        values = TensorFlowActionValues(learner)
    values.load(learner.online)
    return values
