"""Q-networks as Keras 3 models: an MLP for vectors and categories, the Nature CNN for images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from hvd_dqn.errors import UserError

NATURE_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Filters, size and stride of each, Mnih et al. (2015), Methods, "Model architecture"."""
NATURE_HIDDEN_SIZES = (512,)
SMALLEST_CNN_IMAGE = 36
"""Pixels per side below which the Nature CNN's three convolutions leave nothing."""


def choose_kind(kind: str, observation_shape: tuple[int, ...], observation_dtype: np.dtype) -> str:
    """Resolves "auto": cnn for integer observations with two or three dimensions, else mlp.

    Raises:
      UserError: if the CNN is asked for (or chosen) and the observation is no image that it can take.
    """
    image = len(observation_shape) in (2, 3) and np.issubdtype(observation_dtype, np.integer)
    if kind == "auto":
        kind = "cnn" if image else "mlp"
    if kind == "cnn":
        if len(observation_shape) not in (2, 3):
            raise UserError(
                f"--network cnn needs images [height, width(, channels)], not {observation_shape}: use --network mlp"
            )
        if min(image_sides(observation_shape)[:2]) < SMALLEST_CNN_IMAGE:
            raise UserError(
                f"observations of shape {observation_shape} are too small for the CNN (at least "
                f"{SMALLEST_CNN_IMAGE} x {SMALLEST_CNN_IMAGE} pixels): use --network mlp, or resize them in a wrapper"
            )
    return kind


def choose_backend(
    backend: str, kind: str, *, on_gpu: bool, precision: str = "float32", threads: int = 1, compiled: bool = True
) -> str:
    """Resolves "auto": tensorflow on a GPU, numpy in float32 for an MLP or, on one thread, a CNN, else mixed.

    Args:
      backend: what the user asks for.
      kind: "mlp" or "cnn".
      on_gpu: whether this rank has one.
      precision: of the network.
      threads: of this rank. Compiled passes have one; a CNN's products in TensorFlow use all.
      compiled: whether there are compiled passes for this processor.

    Raises:
      UserError: if numpy is asked for in another precision, or for a CNN on a processor without compiled passes.
    """
    if backend == "auto":
        if on_gpu:
            return "tensorflow"
        on_host = precision == "float32" and (kind == "mlp" or (compiled and threads == 1))
        return "numpy" if on_host else "mixed"
    if backend == "numpy" and precision != "float32":
        raise UserError(f"--backend numpy computes in float32 only, not in {precision}: use --backend auto")
    if backend == "numpy" and kind == "cnn" and not compiled:
        raise UserError(
            "--backend numpy computes a CNN on processors with AVX2 and FMA only: use --backend auto or mixed"
        )
    return backend


def image_sides(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns height, width and channels of an image's shape, which may have its channels first: its smallest side."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if has_channels_first(shape):
        return shape[1], shape[2], shape[0]
    return shape[0], shape[1], shape[2]


def has_channels_first(shape: tuple[int, ...]) -> bool:
    """Returns whether an image's shape has its channels first."""
    return len(shape) == 3 and shape[0] < min(shape[1:])


def build_network(
    kind: str,
    observation_shape: tuple[int, ...],
    observation_dtype: np.dtype,
    num_categories: int,
    num_actions: int,
    hidden_sizes: tuple[int, ...],
    seed: int,
    precision: str = "float32",
) -> keras.Model:
    """Builds the Q-network: observation -> one linear output per action.

    Args:
      kind: "mlp" or "cnn" (see `choose_kind`).
      observation_shape: shape of one observation; () for a category.
      observation_dtype: dtype of one observation; integer images are scaled from 0..255 to 0..1.
      num_categories: values of a Discrete observation, one-hot encoded; 0 for others.
      num_actions: A.
      hidden_sizes: units of the MLP's hidden layers.
      seed: seed of the initial weights.
      precision: float32, or bfloat16 or float16 for the layers before the last; weights are float32 always.

    Returns:
      A Keras model: [B, *observation_shape] -> float32 [B, A].
    """
    policy = precision if precision == "float32" else f"mixed_{precision}"
    inputs = keras.Input(observation_shape, dtype=np.dtype(observation_dtype).name)
    if num_categories:
        x = layers.CategoryEncoding(num_categories, output_mode="one_hot")(inputs)  # [B, S]
        x = layers.Reshape((num_categories,))(x)
    elif kind == "cnn":
        x = _nature_torso(inputs, observation_shape, observation_dtype, seed, policy)  # [B, 3136]
        hidden_sizes = NATURE_HIDDEN_SIZES
    else:
        x = layers.Flatten()(inputs)
        if np.issubdtype(observation_dtype, np.integer):
            x = layers.Rescaling(1.0 / 255.0)(x)
    for depth, units in enumerate(hidden_sizes):
        x = layers.Dense(units, activation="relu", kernel_initializer=_he_uniform(seed, depth), dtype=policy)(x)
    q = layers.Dense(num_actions, kernel_initializer=_he_uniform(seed, len(hidden_sizes)), dtype="float32")(x)  # [B, A]
    return keras.Model(inputs, q, name=f"q_{kind}")


def _nature_torso(
    inputs: keras.KerasTensor,
    observation_shape: tuple[int, ...],
    observation_dtype: np.dtype,
    seed: int,
    policy: str,
) -> keras.KerasTensor:
    height, width, channels = image_sides(observation_shape)
    x = inputs
    if has_channels_first(observation_shape):
        x = layers.Permute((2, 3, 1))(x)  # [B, H, W, C]
    x = layers.Reshape((height, width, channels))(x)
    scale = 1.0 / 255.0 if np.issubdtype(observation_dtype, np.integer) else 1.0
    for depth, (filters, size, stride) in enumerate(NATURE_CONVOLUTIONS):
        x = ScaledConv2D(
            scale if depth == 0 else 1.0,
            filters,
            size,
            strides=stride,
            activation="relu",
            kernel_initializer=_he_uniform(seed, 100 + depth),
            dtype=policy,
        )(x)
    return layers.Flatten()(x)


class ScaledConv2D(layers.Conv2D):
    """A convolution of `scale` times its input; in float32 the kernel is scaled instead: a hundred times fewer."""

    def __init__(self, scale: float, *args: Any, **kwargs: Any) -> None:
        """Takes the scale and a Conv2D's arguments."""
        super().__init__(*args, autocast=False, **kwargs)
        self._scale = scale

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves integer or real images."""
        images = keras.ops.cast(inputs, self.compute_dtype)
        if self.compute_dtype == "float32":
            return super().convolution_op(images, kernel * self._scale)
        # In half precision the gradient of a scaled kernel, a sum over large numbers, would overflow.
        return super().convolution_op(images * self._scale, keras.ops.cast(kernel, self.compute_dtype))


def _he_uniform(seed: int, layer: int) -> keras.initializers.Initializer:
    return keras.initializers.HeUniform(seed=seed + layer)
