"""How a replay stores observations: whole, or each frame of stacked ones once."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hvd_dqn.replay.rows import Rows
from hvd_dqn.transition import Transition, TransitionForm


class Observations(Protocol):
    """Stores observations, and gives a reference to each that a replay holds in their place."""

    @property
    def nbytes(self) -> int:
        """Returns the bytes that it takes when the replay is full, columns of references left out."""

    def column(self, capacity: int) -> np.ndarray:
        """Returns room for references [capacity, ...]."""

    def put(self, column: str, observations: np.ndarray) -> np.ndarray:
        """Stores observations and returns references [N, ...] to them.

        Args:
          column: s_tm1 or s_t, whose references are then stored until the next ones of this column have been put.
          observations: [N, *observation_shape].
        """

    def release(self, column: np.ndarray, places: slice | np.ndarray) -> None:
        """Forgets the observations whose references at some places of a column are about to be overwritten."""

    def take(self, stored: Transition, indices: np.ndarray, out: Transition) -> None:
        """Copies the observations of transitions.

        Args:
          stored: columns [capacity, ...] with references in s_tm1 and s_t.
          indices: int64 [...], which transitions.
          out: columns [..., *observation_shape] in s_tm1 and s_t, which take the observations.
        """

    def rows(self, columns: Transition) -> Rows:
        """Returns rows from copies of columns [N, ...] that hold references to their observations."""


class WholeObservations(Observations):
    """Whole observations: the references are the observations themselves."""

    nbytes = 0

    def __init__(self, form: TransitionForm) -> None:
        """Stores observations of a form."""
        self._form = form

    def column(self, capacity: int) -> np.ndarray:
        """Returns room for observations [capacity, *observation_shape]."""
        return np.zeros((capacity, *self._form.observation_shape), self._form.observation_dtype)

    def put(self, column: str, observations: np.ndarray) -> np.ndarray:
        """Returns the observations."""
        return observations

    def release(self, column: np.ndarray, places: slice | np.ndarray) -> None:
        """Does nothing."""

    def take(self, stored: Transition, indices: np.ndarray, out: Transition) -> None:
        """Copies observations; see `Observations`."""
        # No index is out of range; mode "raise" would copy twice.
        stored.s_tm1.take(indices, axis=0, out=out.s_tm1, mode="clip")
        stored.s_t.take(indices, axis=0, out=out.s_t, mode="clip")

    def rows(self, columns: Transition) -> Rows:
        """Returns the rows as they are."""
        return Rows(columns)
