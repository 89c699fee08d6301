"""The MLP for vectors and categories."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from hvd_dqn.networks.outputs import q_network
from hvd_dqn.networks.spec import NetworkSpec


def build(spec: NetworkSpec) -> keras.Model:
    """Builds observations [B, *observation_shape] -> ReLU layers -> the outputs; see `q_network`."""
    inputs = keras.Input(spec.observation_shape, dtype=np.dtype(spec.observation_dtype).name)
    return q_network(inputs, torso(inputs, spec), spec.hidden_sizes, spec, "q_mlp")


def torso(inputs: keras.KerasTensor, spec: NetworkSpec) -> keras.KerasTensor:
    """Returns the observations as features [B, F]: flat and scaled, or one-hot."""
    if spec.num_categories:
        x = layers.CategoryEncoding(spec.num_categories, output_mode="one_hot")(inputs)  # [B, S]
        return layers.Reshape((spec.num_categories,))(x)
    x = layers.Flatten()(inputs)
    return layers.Rescaling(spec.input_scale)(x) if spec.input_scale != 1.0 else x
