"""Describes a Keras model as a list of steps, which `numpy_network.py` computes."""

from __future__ import annotations

from typing import Any

import keras

from hvd_dqn.errors import UserError

_REDUCTION = ("axis", "keepdims")
_SETTINGS: dict[str, tuple[str, ...]] = {
    "InputLayer": ("dtype",),
    "Reshape": ("target_shape",),
    "Flatten": (),
    "Permute": ("dims",),
    "Rescaling": ("scale",),
    "CategoryEncoding": ("num_tokens",),
    "Conv2D": ("strides", "padding", "activation"),
    "MaxPooling2D": ("pool_size", "strides", "padding"),
    "LayerNormalization": ("epsilon",),
    "Dense": ("activation",),
    "EinsumDense": ("equation",),
    "ReLU": (),
    "Add": (),
    "Subtract": (),
    "Multiply": (),
    "Equal": (),
    "Mean": _REDUCTION,
    "Sum": _REDUCTION,
    "Max": _REDUCTION,
    "Softmax": ("axis",),
    "Log": (),
    "Cast": ("dtype",),
}
"""The layers and operations that a step may be, and those of their settings that its computation needs."""


def steps_of(model: keras.Model) -> list[dict[str, Any]]:
    """Returns the model's steps in the order in which they can be computed; the last one gives the action values.

    A step has a `name`, an `op` (the class of Keras), `inputs` (names of earlier steps, or numbers) and the settings of
    its op. Its weights are called `<name>/kernel`, `<name>/bias`, `<name>/gamma`, `<name>/beta`.

    Raises:
      UserError: if a layer is none of those that are known.
    """
    return [_step(record) for record in model.get_config()["layers"]]


def _step(record: dict[str, Any]) -> dict[str, Any]:
    name, op, config = record["name"], record["class_name"], record["config"]
    if (
        op not in _SETTINGS
        or len(record["inbound_nodes"]) > 1
        or config.get("activation", "linear") not in ("linear", "relu")
    ):
        raise UserError(
            f"--format safetensors: the layer {name!r} of the network, a {op}, is none that its program in NumPy "
            "computes: give --format onnx"
        )
    inputs = [part for node in record["inbound_nodes"] for part in _inputs(node["args"])]
    return {"name": name, "op": op, "inputs": inputs} | {key: config[key] for key in _SETTINGS[op]}


def _inputs(argument: Any) -> list[Any]:
    """Returns a node's serialised arguments as names of layers, numbers and arrays (as nested lists)."""
    if isinstance(argument, (list, tuple)):
        return [part for inner in argument for part in _inputs(inner)]
    if not isinstance(argument, dict):
        return [argument]
    if argument["class_name"] == "__keras_tensor__":
        return [argument["config"]["keras_history"][0]]
    return [argument["config"]["value"]]
