"""Shape checks shared by the maths functions; they run while a function is traced, never per step."""

from __future__ import annotations

import tensorflow as tf


def check_ranks(**arguments: tuple[tf.Tensor, int]) -> None:
    """Raises ValueError unless each named tensor has its number of dimensions."""
    for name, (tensor, rank) in arguments.items():
        if tensor.shape.rank != rank:
            raise ValueError(f"{name} has shape {tensor.shape}: expected {rank} dimension(s)")


def check_same_leading_dim(**tensors: tf.Tensor) -> None:
    """Raises ValueError unless all named tensors agree on their first (batch) dimension."""
    sizes = {name: tensor.shape[0] for name, tensor in tensors.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"batch dimensions differ: {sizes}")
