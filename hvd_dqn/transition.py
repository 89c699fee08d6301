"""The plain NumPy record that environments, replay and learner exchange."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Transition(NamedTuple):
    """A batch of N transitions (s_tm1, a_tm1) -> (r_t, s_t), named as in dqn_zoo; any leading shape [...] will do.

    Discount, termination and the number of steps are data: the target of a transition is
    r_t + discount_t * (value of s_t). Only termination stops the bootstrap, a truncated episode does not.
    """

    s_tm1: np.ndarray  # observation dtype [N, *observation_shape]
    a_tm1: np.ndarray  # int32 [N], or [N, joints] where an action has several parts
    r_t: np.ndarray  # float32 [N], reward received on entering s_t
    discount_t: np.ndarray  # float32 [N], gamma, or 0 where s_t is terminal
    s_t: np.ndarray  # observation dtype [N, *observation_shape]
