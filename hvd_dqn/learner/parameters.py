"""All weights of a network as one flat float32 vector, and back."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


class ParameterLayout:
    """Where each weight of a network lies in the flat vector [P]."""

    def __init__(self, network: keras.Model, with_deviations_of: Sequence[int] = ()) -> None:
        """Reads the layout of the network's trainable variables, in Keras' order.

        Args:
          network: the network.
          with_deviations_of: positions of variables for which a standard deviation of the same shape follows behind
            all variables.
        """
        variables = network.trainable_variables
        deviations = [variables[position] for position in with_deviations_of]
        self.names = [variable.path for variable in variables] + [f"{variable.path}_sigma" for variable in deviations]
        self.shapes = [tuple(variable.shape) for variable in (*variables, *deviations)]
        self.sizes = [int(np.prod(shape)) for shape in self.shapes]
        self.total = sum(self.sizes)

    def flatten_variables(self, network: keras.Model) -> np.ndarray:
        """Returns the network's present weights as float32 [P]."""
        return np.concatenate([np.asarray(v).ravel() for v in network.trainable_variables]).astype(np.float32)

    def split(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """Returns the weights of a flat tensor [P], each in its own shape."""
        starts = np.cumsum([0, *self.sizes[:-1]])
        # Slices, since TensorFlow copies nothing for those that are aligned; a split is copied.
        parts = [tf.slice(vector, [start], [size]) for start, size in zip(starts, self.sizes, strict=True)]
        return [tf.reshape(part, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def views(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the weights of a flat array [P] by name, as views."""
        parts = np.split(vector, np.cumsum(self.sizes)[:-1])
        return {name: part.reshape(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}
