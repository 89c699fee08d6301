"""A Keras network as a function of one flat parameter vector."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.quantile import midpoints
from hvd_dqn.learner.masks import unpack
from hvd_dqn.learner.parameters import ParameterLayout

DEFAULT_FRACTIONS = 32
"""With which actions are chosen, K of Dabney et al. (2018); evenly spaced here, so that acting needs no noise."""


class FlatNetwork:
    """The forward pass of a Keras model; what lies in its own variables counts in `model_with` alone."""

    noisy = False
    """Whether `weights` take noise for acting, too."""

    def __init__(self, model: keras.Model, masked_actions: int = 0, valid_bins: np.ndarray | None = None) -> None:
        """Takes the model over.

        Args:
          model: the network.
          masked_actions: A if stored observations end in action masks, 0 if they do not.
          valid_bins: bool [J, A], the bins that each joint of an action has; None for all.
        """
        self.layout = ParameterLayout(model)
        self.observation_dtype = model.inputs[0].dtype
        self._model, self._masked_actions, self._valid_bins = model, masked_actions, valid_bins
        self._own_shape = tuple(model.inputs[0].shape[1:])

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Returns the shape of one stored observation: with an action mask, [n + A]."""
        if not self._masked_actions:
            return self._own_shape
        return (math.prod(self._own_shape) + self._masked_actions,)

    def unpack(self, stored: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns what the model takes of stored observations [B, *stored_shape], and which actions are valid.

        Returns:
          Observations [B, *observation_shape], and bool [B, A] or [B, J, A], None where all actions are valid.
        """
        if self._masked_actions:
            return unpack(stored, self._own_shape, self._masked_actions)
        if self._valid_bins is None:
            return stored, None
        rows = tf.shape(stored)[0] if stored.shape[0] is None else stored.shape[0]
        return stored, tf.broadcast_to(self._valid_bins, [rows, *self._valid_bins.shape])  # [B, J, A]

    @property
    def has_convolutions(self) -> bool:
        """Returns whether any weight is a convolution's kernel: only these have more than two dimensions."""
        return any(len(shape) > 2 for shape in self.layout.shapes)

    def __call__(self, parameters: tf.Tensor, *inputs: tf.Tensor) -> Any:
        """Computes the model's outputs.

        Args:
          parameters: float32 [P].
          *inputs: observations [B, *observation_shape]; of a network that takes fractions, also these, float32 [B, N],
            by default evenly spaced ones.

        Returns:
          What the model returns for them, for most networks one tensor [B, A], [B, A, Z] or [B, J, A].
        """
        return self.forward(self.weights(self.layout.split(parameters)), *inputs)

    def weights(self, parts: list[tf.Tensor], noise: Noise | None = None) -> list[tf.Tensor]:
        """Returns the model's weights from the layout's parts: they are the same, whatever the noise."""
        return parts

    def forward(self, weights: list[tf.Tensor], *inputs: tf.Tensor) -> Any:
        """Computes the model's outputs from its weights, each in its own shape."""
        given = list(inputs)
        if len(given) < len(self._model.inputs):
            rows = tf.shape(given[0])[0]
            given.append(tf.tile(midpoints(DEFAULT_FRACTIONS)[None], [rows, 1]))  # [B, N]
        own = self._model.non_trainable_variables
        outputs, _ = self._model.stateless_call(weights, own, given if len(given) > 1 else given[0])
        return outputs

    def model_with(self, parameters: np.ndarray) -> keras.Model:
        """Returns the Keras model with parameters [P] in its variables; those of a noisy network are the means."""
        weights = self.weights(self.layout.split(tf.constant(parameters)))
        for variable, value in zip(self._model.trainable_variables, weights, strict=True):
            variable.assign(value)
        return self._model

    def initial_parameters(self) -> np.ndarray:
        """Returns the model's initial weights as float32 [P]."""
        return self.layout.flatten_variables(self._model)
