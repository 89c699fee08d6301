"""A Keras network as a function of one flat parameter vector."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvd_dqn.learner.parameters import ParameterLayout


class FlatNetwork:
    """The forward pass of a Keras model; what lies in its own variables is of no use."""

    def __init__(self, model: keras.Model) -> None:
        """Takes the model over."""
        self.layout = ParameterLayout(model)
        self.observation_shape, self.observation_dtype = model.input_shape[1:], model.inputs[0].dtype
        self._model = model

    @property
    def has_convolutions(self) -> bool:
        """Returns whether any weight is a convolution's kernel: only these have more than two dimensions."""
        return any(len(shape) > 2 for shape in self.layout.shapes)

    def __call__(self, parameters: tf.Tensor, s: tf.Tensor) -> Any:
        """Computes the model's outputs.

        Args:
          parameters: float32 [P].
          s: observations [B, *observation_shape].

        Returns:
          What the model returns for them, for most networks one tensor [B, A] or [B, A, Z].
        """
        return self.forward(self.layout.split(parameters), s)

    def forward(self, weights: list[tf.Tensor], s: tf.Tensor) -> Any:
        """Computes the model's outputs from its weights, each in its own shape."""
        outputs, _ = self._model.stateless_call(weights, self._model.non_trainable_variables, s)
        return outputs

    def initial_parameters(self) -> np.ndarray:
        """Returns the model's initial weights as float32 [P]."""
        return self.layout.flatten_variables(self._model)
