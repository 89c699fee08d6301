"""Noisy networks (Fortunato et al. 2018): each dense weight is a learned mean plus a learned deviation times noise."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.parameters import ParameterLayout

INITIAL_DEVIATION = 0.5
"""Of a layer's outputs, in units of its inputs: sigma_0 of section 3.2."""


class NoisyNetwork(FlatNetwork):
    """A model with factorised Gaussian noise on its dense layers.

    The deviations lie behind the model's own weights in the flat vector, so the model needs no layers of a special
    kind. An update draws one noise for the online network and one for the target network, the same on all ranks.
    """

    noisy = True

    def __init__(self, model: keras.Model, masked_actions: int = 0, valid_bins: np.ndarray | None = None) -> None:
        """Takes the model over; see `FlatNetwork`."""
        super().__init__(model, masked_actions, valid_bins)
        dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
        positions = {variable.path: number for number, variable in enumerate(model.trainable_variables)}
        self._layers = [(positions[layer.kernel.path], positions[layer.bias.path]) for layer in dense]
        self._means = len(positions)
        self.layout = ParameterLayout(model, [position for layer in self._layers for position in layer])

    def weights(self, parts: list[tf.Tensor], noise: Noise | None = None) -> list[tf.Tensor]:
        """Returns the model's weights with fresh noise, or their means without.

        Fortunato et al. (2018), "Noisy Networks for Exploration", equations 10 and 11,
        https://arxiv.org/abs/1706.10295.
        """
        weights, deviations = parts[: self._means], parts[self._means :]
        if noise is None:
            return weights
        sides = [side for kernel, _ in self._layers for side in self.layout.shapes[kernel]]
        drawn = noise.shared_normal(sum(sides))
        factors = tf.split(tf.sign(drawn) * tf.sqrt(tf.abs(drawn)), sides)
        for number, (kernel, bias) in enumerate(self._layers):
            rows, columns = factors[2 * number : 2 * number + 2]
            weights[kernel] += deviations[2 * number] * rows[:, None] * columns
            weights[bias] += deviations[2 * number + 1] * columns
        return weights

    def initial_parameters(self) -> np.ndarray:
        """Returns the model's initial weights, and deviations of sigma_0 / sqrt(inputs), as float32 [P]."""
        shapes = [self.layout.shapes[kernel] for kernel, _ in self._layers]
        deviations = [
            np.full(inputs * outputs + outputs, INITIAL_DEVIATION / np.sqrt(inputs), np.float32)
            for inputs, outputs in shapes
        ]
        return np.concatenate([super().initial_parameters(), *deviations])
