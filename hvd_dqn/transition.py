"""The plain NumPy record that environments, replay and learner exchange."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Transition(NamedTuple):
    """A batch of N transitions (s_tm1, a_tm1) -> (r_t, s_t), named as in dqn_zoo; any leading shape [...] will do.

    Discount, termination and the number of steps are data: the target of a transition is
    r_t + discount_t * (value of s_t). Only termination stops the bootstrap, a truncated episode does not.
    """

    s_tm1: np.ndarray  # observation dtype [N, *observation_shape]
    a_tm1: np.ndarray  # int32 [N], or [N, J] where an action has several joints
    r_t: np.ndarray  # float32 [N], reward received on entering s_t
    discount_t: np.ndarray  # float32 [N], gamma, or 0 where s_t is terminal
    s_t: np.ndarray  # observation dtype [N, *observation_shape]


_BYTES_PER_FRAME = 12
"""What a frame takes besides its content: how often it is named, and its place in a table."""


class TransitionForm(NamedTuple):
    """Shapes and dtypes of an environment's transitions."""

    observation_shape: tuple[int, ...]
    """Shape of one observation; () for a number."""
    observation_dtype: np.dtype
    action_shape: tuple[int, ...] = ()
    """(), or (J,) where an action has several joints."""
    stacked_frames: int = 1
    """C, the frames that the last dimension of an observation stacks, newest last; 1 for none."""

    @property
    def observation_bytes(self) -> int:
        """Returns the bytes of one whole observation."""
        return math.prod(self.observation_shape) * self.observation_dtype.itemsize

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Returns the shape of one frame: an observation's, with the C-th part of its last dimension."""
        *sides, channels = self.observation_shape
        return (*sides, channels // self.stacked_frames)

    @property
    def row_bytes(self) -> int:
        """Returns the bytes of a transition with two whole observations."""
        return 2 * self.observation_bytes + 4 * math.prod(self.action_shape) + 4 + 4

    @property
    def stored_bytes(self) -> int:
        """Returns the bytes that a transition takes in a replay, the first frames of episodes left out."""
        if self.stacked_frames == 1:
            return self.row_bytes
        frame = self.observation_bytes // self.stacked_frames
        return self.row_bytes - 2 * self.observation_bytes + frame + 2 * 4 * self.stacked_frames + _BYTES_PER_FRAME

    def blank(self, *shape: int) -> Transition:
        """Returns zeros of a leading shape."""
        observations = (*shape, *self.observation_shape)
        return Transition(
            s_tm1=np.zeros(observations, self.observation_dtype),
            a_tm1=np.zeros((*shape, *self.action_shape), np.int32),
            r_t=np.zeros(shape, np.float32),
            discount_t=np.zeros(shape, np.float32),
            s_t=np.zeros(observations, self.observation_dtype),
        )
