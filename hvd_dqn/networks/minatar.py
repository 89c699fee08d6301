"""The small convolutional network of Young and Tian (2019, https://arxiv.org/abs/1903.03176), for images of a grid."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from hvd_dqn.networks.nature import as_images, convolution
from hvd_dqn.networks.outputs import q_network
from hvd_dqn.networks.spec import NetworkSpec

FILTERS, SIZE = 16, 3
"""Of the convolution, whose stride is 1."""
HIDDEN_SIZES = (128,)


def build(spec: NetworkSpec) -> keras.Model:
    """Builds images [B, height, width(, channels)] -> a convolution -> 128 units -> the outputs; see `q_network`."""
    inputs = keras.Input(spec.observation_shape, dtype=np.dtype(spec.observation_dtype).name)
    return q_network(inputs, torso(inputs, spec), HIDDEN_SIZES, spec, "q_minatar")


def torso(inputs: keras.KerasTensor, spec: NetworkSpec) -> keras.KerasTensor:
    """Returns the convolution's features [B, 1024] for images of 10 x 10."""
    # A grid's integers are flags or kinds of objects: scaled by the largest one, not by a byte's.
    scale = 1.0 / spec.largest_integer if np.issubdtype(spec.observation_dtype, np.integer) else 1.0
    return layers.Flatten()(convolution(as_images(inputs, spec), spec, 0, scale, FILTERS, SIZE, stride=1))
