"""The MLP for vectors and categories, and the hidden layers and the head that other networks share."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from hvd_dqn.networks.spec import NetworkSpec, layer_name


def build(spec: NetworkSpec) -> keras.Model:
    """Builds observations [B, *observation_shape] -> ReLU layers -> the head's outputs."""
    inputs = keras.Input(spec.observation_shape, dtype=np.dtype(spec.observation_dtype).name)
    return keras.Model(inputs, head(torso(inputs, spec), spec), name="q_mlp")


def torso(inputs: keras.KerasTensor, spec: NetworkSpec) -> keras.KerasTensor:
    """Returns the features [B, units]."""
    if spec.num_categories:
        x = layers.CategoryEncoding(spec.num_categories, output_mode="one_hot")(inputs)  # [B, S]
        x = layers.Reshape((spec.num_categories,))(x)
    else:
        x = layers.Flatten()(inputs)
        if spec.input_scale != 1.0:
            x = layers.Rescaling(spec.input_scale)(x)
    return hidden_layers(x, spec.hidden_sizes, spec)


def hidden_layers(x: keras.KerasTensor, sizes: tuple[int, ...], spec: NetworkSpec) -> keras.KerasTensor:
    """Returns the features behind dense ReLU layers of these sizes."""
    for depth, units in enumerate(sizes):
        initial, name = he_uniform(spec.seed, depth), layer_name("dense", depth)
        x = layers.Dense(units, activation="relu", kernel_initializer=initial, dtype=spec.policy, name=name)(x)
    return x


def head(features: keras.KerasTensor, spec: NetworkSpec, depth: int | None = None) -> keras.KerasTensor:
    """Returns the linear outputs, float32 [B, A], or [B, A, Z] where an action has several.

    Args:
      features: [B, units].
      spec: the network's.
      depth: of this layer, which seeds its initial weights; by default behind all hidden layers.
    """
    depth = len(spec.hidden_sizes) if depth is None else depth
    outputs = layers.Dense(
        spec.num_actions * spec.outputs_per_action,
        kernel_initializer=he_uniform(spec.seed, depth),
        dtype="float32",
        name=layer_name("dense", depth),
    )(features)
    if spec.outputs_per_action == 1:
        return outputs
    return layers.Reshape((spec.num_actions, spec.outputs_per_action), dtype="float32")(outputs)


def he_uniform(seed: int, layer: int) -> keras.initializers.Initializer:
    """Returns the initial weights of a ReLU layer (He et al. 2015), seeded by its number."""
    return keras.initializers.HeUniform(seed=seed + layer)
