"""The optimizers of `hvd_dqn.learner.optimizers` in C: the same formulas, in place, one pass over memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from hvd_dqn.learner.optimizers import OPTIMIZERS
from hvd_dqn.native.library import pointer


class BoundOptimizer(ctypes.Structure):
    """An optimizer and the vectors that it changes; twin of the struct in optimizers.h."""

    _fields_ = (
        ("rule", ctypes.c_int64),
        ("parameters", ctypes.c_void_p),
        ("slots", ctypes.c_void_p * 2),
        ("size", ctypes.c_size_t),
        ("learning_rate", ctypes.c_double),
        ("first_decay", ctypes.c_double),
        ("second_decay", ctypes.c_double),
        ("epsilon", ctypes.c_double),
    )


_CONSTANTS = {
    "adam": (0, 0.9, 0.999),  # Kingma & Ba (2015), section 2's efficient form
    "rmsprop": (1, 0.95, 0.0),  # centred, Mnih et al. (2015), Extended Data Table 1
    "sgd": (2, 0.0, 0.0),
}
"""Rule, decay of the first and of the second moment."""
assert _CONSTANTS.keys() == OPTIMIZERS.keys()


def bind_optimizer(
    name: str, parameters: np.ndarray, slots: Sequence[np.ndarray], learning_rate: float, epsilon: float = 0.0
) -> BoundOptimizer:
    """Binds an optimizer to the vectors that `optimizer_step` changes.

    Args:
      name: a name in `OPTIMIZERS`.
      parameters: float32 [P]; the caller keeps it, and the slots.
      slots: float32 [P] each, zeros before the first update.
      learning_rate: the step size.
      epsilon: 0 for the optimizer's own.
    """
    rule, *decays = _CONSTANTS[name]
    pointers = (ctypes.c_void_p * 2)(*[pointer(slot) for slot in slots])
    return BoundOptimizer(
        rule,
        pointer(parameters),
        pointers,
        parameters.size,
        learning_rate,
        *decays,
        epsilon or OPTIMIZERS[name].epsilon,
    )
