"""The optimizers of `optimizers.py` in NumPy: the same formulas, in place, without temporary memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hvd_dqn.maths.optimizers import OPTIMIZERS

NumpyUpdate = Callable[[np.ndarray, list[np.ndarray], np.ndarray, float, int, float, np.ndarray], None]
"""update(parameters, slots, gradient, scale, step, learning_rate, scratch): vectors float32 [P], the first two changed.

The gradient is taken `scale` times: clipping costs no pass of its own.
"""


def clipping_factor(gradient: np.ndarray, max_norm: float) -> float:
    """Returns the factor that brings a flat gradient [P] down to the L2 norm `max_norm` where it is longer."""
    norm = math.sqrt(float(np.dot(gradient, gradient)))
    return max_norm / norm if norm > max_norm else 1.0


def _move_mean(mean: np.ndarray, value: np.ndarray, rate: float) -> None:
    """Moves a running mean in place, mean += (value - mean) * rate; `value` has been multiplied by the rate before."""
    mean *= np.float32(1.0 - rate)
    mean += value


def _adam(
    parameters: np.ndarray,
    slots: list[np.ndarray],
    gradient: np.ndarray,
    scale: float,
    step: int,
    learning_rate: float,
    scratch: np.ndarray,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """Adam, Kingma & Ba (2015), section 2's efficient form."""
    momentum, velocity = slots
    np.multiply(gradient, np.float32(scale * math.sqrt(1.0 - beta_2)), out=scratch)
    scratch *= scratch
    _move_mean(velocity, scratch, 1.0 - beta_2)
    np.multiply(gradient, np.float32(scale * (1.0 - beta_1)), out=scratch)
    _move_mean(momentum, scratch, 1.0 - beta_1)
    np.sqrt(velocity, out=scratch)
    scratch += np.float32(epsilon)
    np.divide(momentum, scratch, out=scratch)
    scratch *= np.float32(learning_rate * math.sqrt(1.0 - beta_2**step) / (1.0 - beta_1**step))
    parameters -= scratch


def _rmsprop(
    parameters: np.ndarray,
    slots: list[np.ndarray],
    gradient: np.ndarray,
    scale: float,
    step: int,
    learning_rate: float,
    scratch: np.ndarray,
    *,
    rho: float = 0.95,
    epsilon: float = 0.01,
) -> None:
    """Centred RMSProp with the constants of Mnih et al. (2015), Extended Data Table 1."""
    del step
    mean, mean_square = slots
    np.multiply(gradient, np.float32(scale * (1.0 - rho)), out=scratch)
    _move_mean(mean, scratch, 1.0 - rho)
    np.multiply(gradient, np.float32(scale * math.sqrt(1.0 - rho)), out=scratch)
    scratch *= scratch
    _move_mean(mean_square, scratch, 1.0 - rho)
    np.square(mean, out=scratch)
    np.subtract(mean_square, scratch, out=scratch)
    scratch += np.float32(epsilon)
    np.sqrt(scratch, out=scratch)
    np.divide(gradient, scratch, out=scratch)
    scratch *= np.float32(learning_rate * scale)
    parameters -= scratch


def _sgd(
    parameters: np.ndarray,
    slots: list[np.ndarray],
    gradient: np.ndarray,
    scale: float,
    step: int,
    learning_rate: float,
    scratch: np.ndarray,
) -> None:
    """Plain stochastic gradient descent."""
    del slots, step
    parameters -= np.multiply(gradient, np.float32(learning_rate * scale), out=scratch)


NUMPY_UPDATES: dict[str, NumpyUpdate] = {"adam": _adam, "rmsprop": _rmsprop, "sgd": _sgd}
assert NUMPY_UPDATES.keys() == OPTIMIZERS.keys()
