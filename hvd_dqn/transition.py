"""The plain NumPy record that environments, replay and learner exchange."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Transition(NamedTuple):
    """A batch of N one-step transitions (s_tm1, a_tm1) -> (r_t, s_t); any leading shape [...] will do.

    `terminated` (the task ended, nothing to bootstrap from) and `truncated` (the episode was cut off, the value
    of s_t still counts) stay apart all the way to the target.
    """

    s_tm1: np.ndarray  # observation dtype [N, *observation_shape]
    a_tm1: np.ndarray  # int32 [N]
    r_t: np.ndarray  # float32 [N], reward received on entering s_t
    terminated: np.ndarray  # bool [N]
    truncated: np.ndarray  # bool [N]
    s_t: np.ndarray  # observation dtype [N, *observation_shape]
