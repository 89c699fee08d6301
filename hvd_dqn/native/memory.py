"""Where the vectors of a learner in host memory lie: with this rank alone, or with all ranks of a host in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hvd_dqn.native.library import aligned_zeros


class LearnerMemory(NamedTuple):
    """Parameters, the optimizer's slots, and the vector that goes out to be summed."""

    state: tuple[np.ndarray, ...]  # float32 [P] each: parameters, then slots
    part: slice  # of the state: what this rank updates, for all that have it in common
    meeting: tuple[int, int]
    """Address and argument of the `meeting_function` of host_learner.c that ends an update, or zeros."""
    vector: np.ndarray  # float32 [N]
    squares: int = 0
    """Address of the sums of the squares of the last sum's blocks (`finite_norm` of optimizers.h), or zero."""


TakeMemory = Callable[[np.ndarray, int, int], LearnerMemory]
"""take_memory(initial, slots, length): a collective; `initial` is float32 [P], the same on all ranks."""


def own_memory(initial: np.ndarray, slots: int, length: int) -> LearnerMemory:
    """Takes memory that only this rank sees.

    Args:
      initial: float32 [P], the parameters to begin with.
      slots: how many vectors of zeros [P] the optimizer wants.
      length: N.
    """
    state = tuple(aligned_zeros(initial.size) for _ in range(1 + slots))
    state[0][:] = initial
    return LearnerMemory(state, slice(0, initial.size), (0, 0), aligned_zeros(length))
