"""Rebuilds a trained network from Keras' own layers and operations, from observations to action values."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from hvd_dqn.algorithms.base import Algorithm
from hvd_dqn.algorithms.quantile import midpoints
from hvd_dqn.errors import UserError
from hvd_dqn.learner.flat_network import DEFAULT_FRACTIONS
from hvd_dqn.networks.impala import SpectralConv2D, largest_singular_value
from hvd_dqn.networks.nature import ScaledConv2D
from hvd_dqn.training.trained import Trained

_OWN_PACKAGE = __name__.partition(".")[0]


def stock_model(trained: Trained) -> keras.Model:
    """Builds the function from observations to action values as one functional Keras model with the trained weights.

    A noisy network has its mean weights. One that takes fractions has those of evaluation, evenly spaced.

    Returns:
      observation [N, *observation_shape], in the environment's dtype -> float32 [N, A]. With action masks there is a
      second input, action_mask int8 [N, A]: 1 for an action that may be taken, whose others have the value -inf. In a
      row of zeros all may be taken. Where an action has joints: float32 [N, J, A], -inf for bins that a joint lacks.

    Raises:
      UserError: if the network is one of the user's own that cannot be rebuilt.
    """
    model = trained.network.model_with(trained.parameters)
    source = model.inputs[0]
    observation = keras.Input(source.shape[1:], dtype=source.dtype, name="observation")
    q = _action_values(trained.algorithm, _rebuilt(model, observation, trained.network_name))  # [N, A] or [N, J, A]
    if trained.spaces.valid_bins is not None:
        q = q + np.where(trained.spaces.valid_bins, 0.0, -np.inf).astype(np.float32)
    if not trained.spaces.masked:
        return keras.Model(observation, q, name="action_values")
    mask = keras.Input((trained.spaces.num_actions,), dtype="int8", name="action_mask")
    return keras.Model([observation, mask], q + _log_valid(mask), name="action_values")


def foreign_layers(model: keras.Model) -> list[str]:
    """Returns the names of layers that Keras alone cannot load: the user's own classes, and Lambdas."""
    return [
        layer.name
        for layer in _all_layers(model)
        if type(layer).__module__.partition(".")[0] != "keras" or isinstance(layer, layers.Lambda)
    ]


def _all_layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer)


def _action_values(algorithm: Algorithm, outputs: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the action values in a network's outputs."""
    try:
        return algorithm.action_values(outputs)
    except ValueError:  # an algorithm of the user's, with functions of TensorFlow: these take no symbolic tensors
        return layers.Lambda(algorithm.action_values, name="algorithm")(outputs)


def _rebuilt(model: keras.Model, observation: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Returns the model's outputs for an observation; its own layers have others in their place.

    Raises:
      UserError: if that is not possible.
    """
    takes_fractions = len(model.inputs) > 1
    if not isinstance(model, keras.Function) and not takes_fractions:  # a Sequential, or a class of the user's
        return model(observation)
    fractions = keras.Input((None,), name="fractions") if takes_fractions else None
    given = [observation] if fractions is None else [observation, fractions]
    try:
        outputs = keras.models.clone_model(
            model,
            input_tensors=keras.tree.pack_sequence_as(model.input, given),
            clone_function=lambda layer: layer,
            call_function=functools.partial(_call, fractions),
        ).output
        keras.Model(observation, outputs)  # raises if they depend on fractions still
        return outputs
    except ValueError as error:
        raise UserError(
            f"--network {name} cannot be exported: only a functional Keras model can, and with quantiles at fractions "
            f"one that multiplies its features by their embedding, as hvd_dqn/networks/outputs.py does ({error})"
        ) from None


def _call(fractions: keras.KerasTensor | None, layer: Any, *inputs: Any, **options: Any) -> Any:
    """Applies a layer, or stock layers of the same values in its place."""
    if isinstance(layer, ScaledConv2D):
        images = inputs[0]
        if layer.scale != 1.0 or images.dtype != "float32":
            images = layers.Rescaling(layer.scale)(images)
        return _convolved(layer, images, np.asarray(layer.kernel))
    if isinstance(layer, SpectralConv2D):
        return _convolved(layer, inputs[0], np.asarray(layer.kernel / largest_singular_value(layer.kernel)))
    if isinstance(layer, layers.Lambda) and layer.function.__module__.partition(".")[0] == _OWN_PACKAGE:
        return layer.function(*inputs)  # of symbolic tensors: operations of Keras
    if isinstance(layer, layers.Multiply) and fractions is not None:
        return _at_fractions(fractions, *inputs[0])
    return layer(*inputs, **options)


def _convolved(layer: layers.Conv2D, x: keras.KerasTensor, kernel: np.ndarray) -> keras.KerasTensor:
    """Returns a stock convolution of x with this kernel, and with the layer's other settings and its bias."""
    stock = layers.Conv2D.from_config(layer.get_config())
    features = stock(x)
    stock.set_weights([kernel, np.asarray(layer.bias)])
    return features


def _at_fractions(
    fractions: keras.KerasTensor, features: keras.KerasTensor, embedding: keras.KerasTensor
) -> keras.KerasTensor:
    """Multiplies features [N, 1, F] by the embedding of evaluation's fractions, a constant: [N, K, F]."""
    constant = np.asarray(keras.Model(fractions, embedding)(midpoints(DEFAULT_FRACTIONS)[None])[0])  # [K, F]
    product = layers.EinsumDense("bf,kf->bkf", constant.shape, name="quantile_embedding")
    outputs = product(layers.Flatten()(features))
    product.set_weights([constant])
    return outputs


def _log_valid(mask: keras.KerasTensor) -> keras.KerasTensor:
    """Returns float32 [N, A]: 0 for actions that may be taken, -inf for others; for a mask of zeros, 0."""
    numbers = ops.cast(mask, "float32")
    valid = ops.equal(numbers, ops.max(numbers, axis=1, keepdims=True))
    return ops.log(ops.cast(valid, "float32"))
