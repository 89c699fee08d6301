"""The convolutional network of Mnih et al. (2015), for images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from hvd_dqn.networks.outputs import layer_seed, q_network
from hvd_dqn.networks.spec import NetworkSpec, layer_name

CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Filters, size and stride of each, Mnih et al. (2015), Methods, "Model architecture"."""
HIDDEN_SIZES = (512,)


def build(spec: NetworkSpec) -> keras.Model:
    """Builds images [B, height, width(, channels)] -> convolutions -> 512 units -> the outputs; see `q_network`."""
    inputs = keras.Input(spec.observation_shape, dtype=np.dtype(spec.observation_dtype).name)
    return q_network(inputs, torso(inputs, spec), HIDDEN_SIZES, spec, "q_cnn")


def torso(inputs: keras.KerasTensor, spec: NetworkSpec) -> keras.KerasTensor:
    """Returns the convolutions' features [B, 3136] for images of 84 x 84."""
    x = as_images(inputs, spec)
    for depth, (filters, size, stride) in enumerate(CONVOLUTIONS):
        x = convolution(x, spec, depth, spec.input_scale if depth == 0 else 1.0, filters, size, stride)
    return layers.Flatten()(x)


def as_images(inputs: keras.KerasTensor, spec: NetworkSpec) -> keras.KerasTensor:
    """Returns the observations as images [B, height, width, channels]."""
    height, width, *channels = spec.observation_shape
    return layers.Reshape((height, width, *(channels or [1])))(inputs)


def convolution(
    x: keras.KerasTensor, spec: NetworkSpec, depth: int, scale: float, filters: int, size: int, stride: int
) -> keras.KerasTensor:
    """Returns ReLU features of a convolution of `scale` times x; its number `depth` names and seeds it."""
    layer = ScaledConv2D(
        scale,
        filters,
        size,
        strides=stride,
        activation="relu",
        kernel_initializer=keras.initializers.HeUniform(layer_seed(spec, "scaled_conv2d", depth)),
        dtype=spec.policy,
        name=layer_name("scaled_conv2d", depth),
    )
    return layer(x)


class ScaledConv2D(layers.Conv2D):
    """A convolution of `scale` times its input; in float32 the kernel is scaled instead: a hundred times fewer."""

    def __init__(self, scale: float, *args: Any, **kwargs: Any) -> None:
        """Takes the scale and a Conv2D's arguments."""
        super().__init__(*args, autocast=False, **kwargs)
        self.scale = scale

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves integer or real images."""
        images = keras.ops.cast(inputs, self.compute_dtype)
        if self.compute_dtype == "float32":
            return super().convolution_op(images, kernel * self.scale)
        # In half precision the gradient of a scaled kernel, a sum over large numbers, would overflow.
        return super().convolution_op(images * self.scale, keras.ops.cast(kernel, self.compute_dtype))
