"""The losses of `losses.py` with their derivatives, in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

NumpyLoss = Callable[[np.ndarray, np.ndarray], np.ndarray]


def squared_loss(td_error: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Computes (target - Q)^2.

    Args:
      td_error: float32 [B], target minus prediction.
      out: float32 [B], takes the loss.

    Returns:
      float32 [B], the loss' derivative by the TD error.
    """
    np.square(td_error, out=out)
    return 2.0 * td_error


def huber_loss(td_error: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Computes the Huber loss with threshold 1.

    Args:
      td_error: float32 [B], target minus prediction.
      out: float32 [B], takes the loss.

    Returns:
      float32 [B], the loss' derivative by the TD error: the error, cut to [-1, 1].
    """
    cut = np.minimum(np.maximum(td_error, -1.0), 1.0)  # np.clip takes three times longer over so few numbers
    np.multiply(cut, -0.5, out=out)
    out += td_error
    out *= cut
    return cut


NUMPY_LOSSES: dict[str, NumpyLoss] = {"mse": squared_loss, "huber": huber_loss}
