"""The optimizers of `optimizers.py` as compiled kernels: the same formulas, in place, one pass over memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence

import numpy as np

from hvd_dqn.maths.kernels import address
from hvd_dqn.maths.optimizers import OPTIMIZERS

Update = Callable[[int, float, int], None]
"""update(gradient, scale, step): applies `scale` times the gradient at this address; step is 1 at the first update."""


def clipping_factor(norm: float, max_norm: float) -> float:
    """Returns the factor that brings a gradient of this L2 norm down to `max_norm` where that is not 0 and less."""
    return max_norm / norm if 0.0 < max_norm < norm else 1.0


def _adam(
    kernels: ctypes.CDLL,
    vectors: Sequence[int],
    size: int,
    learning_rate: float,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> Update:
    """Adam, Kingma & Ba (2015), section 2's efficient form."""
    to_momentum, to_velocity = 1.0 - beta_1, math.sqrt(1.0 - beta_2)

    def update(gradient: int, scale: float, step: int) -> None:
        rate = learning_rate * math.sqrt(1.0 - beta_2**step) / (1.0 - beta_1**step)
        kernels.adam(*vectors, gradient, size, scale * to_momentum, scale * to_velocity, beta_1, beta_2, epsilon, rate)

    return update


def _rmsprop(
    kernels: ctypes.CDLL,
    vectors: Sequence[int],
    size: int,
    learning_rate: float,
    *,
    rho: float = 0.95,
    epsilon: float = 0.01,
) -> Update:
    """Centred RMSProp with the constants of Mnih et al. (2015), Extended Data Table 1."""
    to_mean, to_square = 1.0 - rho, math.sqrt(1.0 - rho)

    def update(gradient: int, scale: float, step: int) -> None:
        del step
        kernels.rmsprop(
            *vectors, gradient, size, scale * to_mean, scale * to_square, rho, epsilon, scale * learning_rate
        )

    return update


def _sgd(kernels: ctypes.CDLL, vectors: Sequence[int], size: int, learning_rate: float) -> Update:
    """Plain stochastic gradient descent."""

    def update(gradient: int, scale: float, step: int) -> None:
        del step
        kernels.sgd(*vectors, gradient, size, scale * learning_rate)

    return update


_MAKERS: dict[str, Callable[[ctypes.CDLL, Sequence[int], int, float], Update]] = {
    "adam": _adam,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}
assert _MAKERS.keys() == OPTIMIZERS.keys()


def make_update(
    kernels: ctypes.CDLL, name: str, parameters: np.ndarray, slots: Sequence[np.ndarray], learning_rate: float
) -> Update:
    """Binds an optimizer to the vectors that it changes.

    Args:
      kernels: from `load_kernels`.
      name: a name in `OPTIMIZERS`.
      parameters: float32 [P]; the caller keeps it, and the slots.
      slots: float32 [P] each, zeros before the first update.
      learning_rate: the step size.
    """
    vectors = [address(vector) for vector in (parameters, *slots)]
    return _MAKERS[name](kernels, vectors, parameters.size, learning_rate)
