"""Computes the action values of a model.safetensors with NumPy. Needs numpy and safetensors, no other file.

    from numpy_network import load

    action_values = load("model.safetensors")
    action = action_values(observation[None])[0].argmax()

The file's metadata hold the network as a list of steps, each with its inputs. Its tensors are the steps' weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

Array = np.ndarray
Step = Mapping[str, Any]


def load(path: str | Path) -> Callable[..., Array]:
    """Returns the function of (observation [N, ...], action_mask [N, A] if there are masks) -> float32 [N, A]."""
    with safe_open(path, framework="numpy") as file:
        steps = json.loads(file.metadata()["network"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict

    def action_values(observation: Any, action_mask: Any = None) -> Array:
        known: dict[str, Any] = {"observation": observation, "action_mask": action_mask}
        for step in steps:
            name, op = step["name"], step["op"]
            if op == "InputLayer":
                known[name] = np.asarray(known[name], step["dtype"])
                continue
            inputs = [known[part] if isinstance(part, str) else np.array(part, np.float32) for part in step["inputs"]]
            own = [weights[f"{name}/{kind}"] for kind in WEIGHTS.get(op, ()) if f"{name}/{kind}" in weights]
            with np.errstate(divide="ignore"):  # the logarithm of 0 is -inf: an action that may not be taken
                known[name] = OPERATIONS[op](step, *inputs, *own)
        return known[steps[-1]["name"]]

    return action_values


def activated(step: Step, x: Array) -> Array:
    """Returns the step's activation of x: a ReLU, or x itself."""
    return np.maximum(x, 0) if step["activation"] == "relu" else x


def windows(x: Array, size: Sequence[int], strides: Sequence[int], padding: str, outside: float) -> Array:
    """Returns images [N, H, W, C] as windows [N, rows, columns, C, *size]; "same" pads as TensorFlow does."""
    if padding == "same":
        lacking = [
            max((-(-length // stride) - 1) * stride + width - length, 0)
            for length, width, stride in zip(x.shape[1:3], size, strides, strict=True)
        ]
        margins = [(total // 2, total - total // 2) for total in lacking]
        x = np.pad(x, [(0, 0), *margins, (0, 0)], constant_values=outside)
    view: Any = np.lib.stride_tricks.sliding_window_view
    return view(x, size, axis=(1, 2))[:, :: strides[0], :: strides[1]]


def convolution(step: Step, x: Array, kernel: Array, bias: Any = 0.0) -> Array:
    """Returns [N, rows, columns, O] for images [N, H, W, C] and a kernel [h, w, C, O]."""
    seen = windows(x, kernel.shape[:2], step["strides"], step["padding"], 0.0)
    return activated(step, np.tensordot(seen, kernel, axes=((4, 5, 3), (0, 1, 2))) + bias)


def largest(step: Step, x: Array) -> Array:
    """Returns the largest number of each window, [N, rows, columns, C]."""
    return windows(x, step["pool_size"], step["strides"], step["padding"], -np.inf).max(axis=(4, 5))


def normalised(step: Step, x: Array, gamma: Array, beta: Array) -> Array:
    """Returns x with mean 0 and variance 1 along its last axis, times gamma, plus beta."""
    deviations = x - x.mean(axis=-1, keepdims=True)
    return deviations / np.sqrt(deviations.var(axis=-1, keepdims=True) + step["epsilon"]) * gamma + beta


def softmax(step: Step, x: Array) -> Array:
    """Returns probabilities along the step's axis."""
    powers = np.exp(x - x.max(axis=step["axis"], keepdims=True))
    return powers / powers.sum(axis=step["axis"], keepdims=True)


def reduction(function: Any) -> Callable[[Step, Array], Array]:
    """Returns a reduction along the step's axis."""
    return lambda step, x: function(x, axis=step["axis"], keepdims=step["keepdims"])


WEIGHTS = {
    **dict.fromkeys(("Dense", "Conv2D"), ("kernel", "bias")),
    "EinsumDense": ("kernel",),
    "LayerNormalization": ("gamma", "beta"),
}
"""The weights of a step, by its operation."""
OPERATIONS: dict[str, Callable[..., Array]] = {
    "Reshape": lambda step, x: x.reshape(len(x), *step["target_shape"]),
    "Flatten": lambda step, x: x.reshape(len(x), int(np.prod(x.shape[1:]))),
    "Permute": lambda step, x: x.transpose(0, *step["dims"]),
    "Rescaling": lambda step, x: x.astype(np.float32) * np.float32(step["scale"]),
    "CategoryEncoding": lambda step, x: np.eye(step["num_tokens"], dtype=np.float32)[x],
    "Conv2D": convolution,
    "MaxPooling2D": largest,
    "LayerNormalization": normalised,
    "Dense": lambda step, x, kernel, bias=0.0: activated(step, x @ kernel + bias),
    "EinsumDense": lambda step, x, kernel: np.einsum(step["equation"], x, kernel),
    "ReLU": lambda step, x: np.maximum(x, 0),
    "Add": lambda step, x, y: x + y,
    "Subtract": lambda step, x, y: x - y,
    "Multiply": lambda step, x, y: x * y,
    "Equal": lambda step, x, y: x == y,
    "Mean": reduction(np.mean),
    "Sum": reduction(np.sum),
    "Max": reduction(np.max),
    "Softmax": softmax,
    "Log": lambda step, x: np.log(x),
    "Cast": lambda step, x: x.astype(step["dtype"]),
}
