"""The losses of `losses.py` with their derivatives, in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def squared_loss(td_error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes (target - Q)^2.

    Args:
      td_error: float32 [B], target minus prediction.

    Returns:
      float32 [B], the loss, and float32 [B], its derivative by the TD error.
    """
    return np.square(td_error), 2.0 * td_error


def huber_loss(td_error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the Huber loss with threshold 1.

    Args:
      td_error: float32 [B], target minus prediction.

    Returns:
      float32 [B], the loss, and float32 [B], its derivative by the TD error: the error, clipped to [-1, 1].
    """
    clipped = np.clip(td_error, -1.0, 1.0)
    return clipped * (td_error - 0.5 * clipped), clipped


NUMPY_LOSSES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "mse": squared_loss,
    "huber": huber_loss,
}
