"""The residual network of Espeholt et al. (2018, "IMPALA", https://arxiv.org/abs/1802.01561, figure 3), for images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from hvd_dqn.networks.nature import ScaledConv2D, as_images
from hvd_dqn.networks.outputs import layer_seed, q_network
from hvd_dqn.networks.spec import NetworkSpec, layer_name

FILTERS = (16, 32, 32)
"""Channels of the sections at width 1."""
BLOCKS = 2
"""Residual blocks per section, of two convolutions each."""
HIDDEN_SIZES = (256,)
_SQUARINGS = 6
"""Of the Gram matrix: as exact as 64 steps of power iteration."""


def build(spec: NetworkSpec) -> keras.Model:
    """Builds images [B, height, width(, channels)] -> three residual sections -> 256 units -> the outputs."""
    inputs = keras.Input(spec.observation_shape, dtype=np.dtype(spec.observation_dtype).name)
    return q_network(inputs, torso(inputs, spec), HIDDEN_SIZES, spec, "q_impala")


def torso(inputs: keras.KerasTensor, spec: NetworkSpec) -> keras.KerasTensor:
    """Returns the sections' features [B, 3872] for images of 84 x 84 at width 1."""
    x = as_images(inputs, spec)
    for section, filters in enumerate(FILTERS):
        x = _stem(x, spec, section, filters * spec.impala_width)  # [B, height / 2, width / 2, filters]
        for block in range(section * BLOCKS, (section + 1) * BLOCKS):
            x = _residual_block(x, spec, block, filters * spec.impala_width)
    return layers.Flatten()(layers.ReLU(dtype=spec.policy)(x))


def _stem(x: keras.KerasTensor, spec: NetworkSpec, section: int, filters: int) -> keras.KerasTensor:
    """Returns a convolution of x with half its height and width."""
    x = ScaledConv2D(
        spec.input_scale if section == 0 else 1.0,
        filters,
        3,
        padding="same",
        kernel_initializer=_initial(spec, "scaled_conv2d", section),
        dtype=spec.policy,
        name=layer_name("scaled_conv2d", section),
    )(x)
    x = layers.MaxPooling2D(3, 2, padding="same", dtype=spec.policy)(x)
    if not spec.layer_norm:
        return x
    # Clark et al. (2024, "Beyond the Rainbow", https://arxiv.org/abs/2411.03820), footnote 2, place it here.
    return layers.LayerNormalization(dtype=spec.policy, name=layer_name("layer_norm", section))(x)


def _residual_block(x: keras.KerasTensor, spec: NetworkSpec, block: int, filters: int) -> keras.KerasTensor:
    """Returns x plus two convolutions of it, each behind a ReLU."""
    change = x
    for number in (2 * block, 2 * block + 1):
        convolution = (SpectralConv2D if spec.spectral_norm else layers.Conv2D)(
            filters,
            3,
            padding="same",
            kernel_initializer=_initial(spec, "residual_conv2d", number),
            dtype=spec.policy,
            name=layer_name("residual_conv2d", number),
        )
        change = convolution(layers.ReLU(dtype=spec.policy)(change))
    return layers.Add(dtype=spec.policy)([x, change])


def _initial(spec: NetworkSpec, name: str, number: int) -> keras.initializers.Initializer:
    """Returns an initializer with a sixth of He's variance: maxima of pooling and sums of blocks make features grow."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=layer_seed(spec, name, number))


class SpectralConv2D(layers.Conv2D):
    """A convolution by its kernel over the kernel's largest singular value (Miyato et al. 2018)."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves images by the normalised kernel."""
        wide = ops.cast(kernel, "float32")
        return super().convolution_op(inputs, ops.cast(wide / largest_singular_value(wide), self.compute_dtype))


def largest_singular_value(kernel: Any) -> Any:
    """Computes the spectral norm of a kernel as the matrix from its inputs to its outputs.

    Miyato et al. (2018), "Spectral normalization for generative adversarial networks", section 2.1,
    https://arxiv.org/abs/1802.05957, whose power iteration keeps a vector from one update to the next. Here the vector
    is computed from the kernel alone, so it is the same on all ranks, and a checkpoint need not hold it.

    Args:
      kernel: float32 [height, width, inputs, outputs].

    Returns:
      A float32 scalar. Its gradient is that of u^T W v, with the singular vectors u and v held constant.
    """
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))  # [I, O]
    constant = ops.stop_gradient(matrix)
    gram = ops.matmul(ops.transpose(constant), constant)  # [O, O]
    for _ in range(_SQUARINGS):
        gram = gram / ops.norm(gram)
        gram = ops.matmul(gram, gram)
    column = ops.take(gram, ops.argmax(ops.diagonal(gram)), axis=1)  # [O]
    v = ops.stop_gradient(column / ops.norm(column))
    return ops.norm(ops.matmul(matrix, v[:, None]))
