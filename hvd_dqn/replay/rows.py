"""Rows of a replay as checkpoints hold them: whole observations, or the numbers of frames that are held once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hvd_dqn.replay.stacks import put_together
from hvd_dqn.transition import Transition


@dataclass(frozen=True)
class Rows:
    """N transitions, oldest first."""

    columns: Transition
    """Columns [N, ...]; with `frames`, s_tm1 and s_t are the numbers of their frames, int32 [N, C]."""
    frames: np.ndarray | None = None
    """[F, *frame_shape], all that the rows name; None where observations are whole."""

    @classmethod
    def naming(cls, columns: Transition, frames: Callable[[np.ndarray], np.ndarray]) -> Rows:
        """Returns rows that name frames of a larger number, which are numbered again in their order in the rows.

        So equal transitions make equal rows, wherever a replay happens to hold their frames.

        Args:
          columns: with numbers of frames, int32 [N, C].
          frames: returns copies of frames [F, *frame_shape] by their numbers [F].
        """
        both = np.stack([columns.s_tm1, columns.s_t], axis=1)  # [N, 2, C]
        used, first, numbers = np.unique(both, return_index=True, return_inverse=True)
        order = np.argsort(first)
        again = np.argsort(order).astype(np.int32)[numbers.reshape(both.shape)]  # [N, 2, C]
        return cls(columns._replace(s_tm1=again[:, 0], s_t=again[:, 1]), frames(used[order]))

    def __len__(self) -> int:
        """Returns N."""
        return len(self.columns.a_tm1)

    @property
    def row_bytes(self) -> int:
        """Returns the bytes of one transition with whole observations."""
        size = sum(math.prod(column.shape[1:]) * column.itemsize for column in self.columns)
        if self.frames is None:
            return size
        s_tm1, frame = self.columns.s_tm1, math.prod(self.frames.shape[1:]) * self.frames.itemsize
        return size + 2 * s_tm1.shape[1] * (frame - s_tm1.itemsize)

    def part(self, rows: slice) -> Rows:
        """Returns some consecutive rows, with the frames that they name."""
        columns = Transition(*(column[rows] for column in self.columns))
        return Rows(columns) if self.frames is None else Rows.naming(columns, self.frames.__getitem__)

    def whole(self) -> Transition:
        """Returns the transitions with whole observations."""
        if self.frames is None:
            return self.columns
        s_tm1, s_t = (_stacked(self.frames, numbers) for numbers in (self.columns.s_tm1, self.columns.s_t))
        return self.columns._replace(s_tm1=s_tm1, s_t=s_t)


def _stacked(frames: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Returns observations [N, *sides, C * k] from frames [F, *sides, k] and their numbers [N, C]."""
    count, stacked_frames = numbers.shape
    *sides, channels = frames.shape[1:]
    observations = np.empty((count, *sides, stacked_frames * channels), frames.dtype)
    put_together(lambda part, place: frames[numbers[part, place]], stacked_frames, observations)
    return observations
