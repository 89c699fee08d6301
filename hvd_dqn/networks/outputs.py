"""What every network has behind its torso: hidden layers, and a head of one stream or of two."""

from __future__ import annotations

import math

import keras
from keras import layers, ops

from hvd_dqn.networks.spec import NetworkSpec, layer_name

OUTPUT_SCALE = 0.01
"""Variance of a network's first outputs, relative to the features that enter the last layer. With He's 2 the first
action values are as large as the observations, and the maximum in the targets feeds on them."""
COSINES = 64
"""Features of a fraction, Dabney et al. (2018), "Implicit Quantile Networks", section 3.1."""


def q_network(
    inputs: keras.KerasTensor, features: keras.KerasTensor, hidden_sizes: tuple[int, ...], spec: NetworkSpec, name: str
) -> keras.Model:
    """Builds the model from the observations to the outputs.

    Args:
      inputs: the observations.
      features: the torso's, [B, F].
      hidden_sizes: units of the hidden layers between features and outputs; with `dueling` each stream has its own
        last one (Wang et al. 2016).
      spec: the network's. With `takes_fractions` the model has a second input, float32 [B, N].
      name: of the model.

    Returns:
      The model; its outputs are float32 [B, A], [B, A, Z] where an action has several, [B, A, N], or [B, J, A] where
      an action has joints. Advantages of a joint's bins are centred by their own mean (Tavakoli et al. 2018).
    """
    model_inputs = [inputs]
    if spec.takes_fractions:
        model_inputs.append(keras.Input((None,), name="fractions"))
        features = _at_fractions(features, model_inputs[1], spec)  # [B, N, F]
    shared, own = hidden_sizes[:-1], hidden_sizes[-1:]
    x = hidden_layers(features, shared, spec)
    outputs = _stream(x, own, spec, spec.num_actions * (spec.joints or 1), "dense", len(shared))  # [B, A, Z], [B, N, A]
    if spec.joints:
        outputs = layers.Reshape((spec.joints, spec.num_actions), dtype="float32")(outputs)  # [B, J, A]
    if spec.dueling:
        axis = 2 if spec.takes_fractions or spec.joints else 1
        value = _stream(x, own, spec, 1, "value", len(shared))  # [B, 1, Z] or [B, N, 1]
        outputs = layers.Lambda(lambda v: v[0] + v[1] - ops.mean(v[1], axis, keepdims=True), dtype="float32")(
            [value, outputs]
        )
    if spec.takes_fractions:
        outputs = layers.Permute((2, 1), dtype="float32")(outputs)  # [B, A, N]
    elif spec.outputs_per_action == 1 and not spec.joints:
        outputs = layers.Reshape((spec.num_actions,), dtype="float32")(outputs)  # [B, A]
    return keras.Model(model_inputs if spec.takes_fractions else inputs, outputs, name=name)


def hidden_layers(
    x: keras.KerasTensor, sizes: tuple[int, ...], spec: NetworkSpec, name: str = "dense", first: int = 0
) -> keras.KerasTensor:
    """Returns the features behind dense ReLU layers of these sizes, numbered from `first`."""
    for number, units in enumerate(sizes, first):
        initial = keras.initializers.HeUniform(seed=layer_seed(spec, name, number))  # He et al. (2015)
        layer = layers.Dense(units, activation="relu", kernel_initializer=initial, dtype=spec.policy,
                             name=layer_name(name, number))  # fmt: skip
        x = layer(x)
    return x


def layer_seed(spec: NetworkSpec, name: str, number: int) -> int:
    """Returns the seed of a layer's initial weights, its own for each kind and number."""
    kinds = ("dense", "scaled_conv2d", "value", "fraction", "residual_conv2d")
    return spec.seed + 100 * kinds.index(name) + number


def _stream(
    x: keras.KerasTensor, sizes: tuple[int, ...], spec: NetworkSpec, actions: int, name: str, first: int
) -> keras.KerasTensor:
    """Returns linear outputs behind hidden layers: [B, actions, Z], or [B, N, actions] at fractions."""
    number = first + len(sizes)
    initial = keras.initializers.VarianceScaling(OUTPUT_SCALE, "fan_in", "uniform", seed=layer_seed(spec, name, number))
    x = hidden_layers(x, sizes, spec, name, first)
    if spec.layer_norm:
        x = layers.LayerNormalization(dtype=spec.policy, name=f"{name}_layer_norm")(x)
    outputs = layers.Dense(
        actions * spec.outputs_per_action, kernel_initializer=initial, dtype="float32", name=layer_name(name, number)
    )(x)
    if spec.takes_fractions:
        return outputs
    return layers.Reshape((actions, spec.outputs_per_action), dtype="float32")(outputs)


def _at_fractions(features: keras.KerasTensor, fractions: keras.KerasTensor, spec: NetworkSpec) -> keras.KerasTensor:
    """Multiplies features [B, F] with an embedding of fractions [B, N]: [B, N, F]; Dabney et al. (2018), equation 4."""
    size = features.shape[-1]
    frequencies = math.pi * ops.arange(COSINES, dtype="float32")
    cosines = layers.Lambda(lambda f: ops.cos(f[..., None] * frequencies), dtype="float32")(fractions)  # [B, N, 64]
    return layers.Multiply()(
        [layers.Reshape((1, size))(features), hidden_layers(cosines, (size,), spec, "fraction")]
    )  # [B, N, F]
