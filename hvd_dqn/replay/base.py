"""What the job asks of a replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from hvd_dqn.replay.rows import Rows
from hvd_dqn.transition import Transition


class Sample(NamedTuple):
    """K batches of B transitions drawn from one rank's replay; overwritten by the next sample."""

    transitions: Transition  # columns [K, B, ...]
    indices: np.ndarray  # int64 [K, B], where each lies, for `update_priorities`
    probabilities: np.ndarray  # float64 [K, B], of drawing each at this draw


class Replay(Protocol):
    """The transitions of one rank; it knows no other.

    It is built with its capacity, the form of its transitions, a generator, and those fields of the configuration that
    its `__init__` names.
    """

    capacity: int
    added: int
    """Transitions ever added."""
    prioritized: bool
    """Whether transitions are drawn with unequal probabilities, so that the losses must be weighted."""
    largest_priority: float
    """Of all transitions of the job so far, equal on all ranks. The job sets it; new transitions may use it."""

    def __len__(self) -> int:
        """Returns the number of transitions stored."""

    @property
    def nbytes(self) -> int:
        """Returns the bytes that it takes when it is full."""

    def add(self, batch: Transition) -> None:
        """Stores a batch [N]; the oldest transitions make room."""

    def sample(self, updates: int, batch_size: int) -> Sample:
        """Draws K batches of B.

        Raises:
          ValueError: if nothing is stored.
        """

    def blank(self, updates: int, batch_size: int) -> Sample:
        """Returns zeros in the form of `sample`: what a rank with a fault contributes to its last update."""

    def update_priorities(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        """Takes the learner's priorities float32 [...] of the transitions at int64 [...]."""

    def empty(self) -> Transition:
        """Returns a Transition of no rows, which shows dtypes and shapes."""

    def rows(self, numbers: np.ndarray) -> Rows:
        """Returns copies of transitions by their numbers int64 [N], counted from the first ever added.

        Raises:
          ValueError: if one of them is not stored.
        """

    def contents(self) -> Transition:
        """Returns copies of all stored transitions, oldest first."""

    def overwrite(self, numbers: np.ndarray, transitions: Transition) -> None:
        """Replaces transitions [N] that are stored under some numbers int64 [N] by new ones."""

    def restore(self, transitions: Transition, added: int) -> None:
        """Replaces all contents.

        Args:
          transitions: the newest ones [N], oldest first; those beyond the capacity are dropped.
          added: how many have ever been added, N of them included. The stored ones before the N are zeros.
        """

    def extra_state(self) -> dict[str, np.ndarray]:
        """Returns what a checkpoint must hold besides the transitions, such as priorities.

        Returns:
          Arrays by name, with a row for each stored transition, oldest first.
        """

    def load_extra_state(self, extra: dict[str, np.ndarray]) -> None:
        """Puts back what `extra_state` returned, row by row of the transitions that are stored now."""


Columns = Sequence[np.ndarray]
"""All that a replay stores, a row per transition: arrays [N, ...], observations whole."""


def reader_of(replay: Replay) -> Callable[[np.ndarray], Columns]:
    """Returns a function that returns copies of rows [N] of a replay by their places int64 [N]; 0 is the oldest."""
    oldest, extra = replay.added - len(replay), replay.extra_state().values()
    return lambda places: [*replay.rows(oldest + places).whole(), *(column[places] for column in extra)]


def empty_columns(replay: Replay) -> Columns:
    """Returns no rows, which show dtypes and shapes."""
    return [*replay.empty(), *(column[:0] for column in replay.extra_state().values())]


class Refill:
    """Replaces all contents of a replay by rows that arrive in any order."""

    def __init__(self, replay: Replay) -> None:
        """Takes the replay."""
        self._replay = replay

    def begin(self, count: int) -> None:
        """Makes room.

        Args:
          count: rows that will arrive; the oldest beyond the replay's capacity are dropped.
        """
        self._replay.restore(self._replay.empty(), count)
        self._dropped = count - len(self._replay)
        self._extra = self._replay.extra_state()
        self._has_extra = True

    def put(self, places: np.ndarray, columns: Columns) -> None:
        """Takes rows.

        Args:
          places: int64 [N], of each row among all; 0 is the oldest.
          columns: the rows [N, ...], as `reader_of` gives them, or without the replay's extra state.
        """
        kept = places >= self._dropped
        places, columns = places[kept], [column[kept] for column in columns]
        fields = len(Transition._fields)
        self._replay.overwrite(places, Transition(*columns[:fields]))
        self._has_extra &= len(columns) > fields
        for whole, column in zip(self._extra.values(), columns[fields:], strict=False):
            whole[places - self._dropped] = column

    def finish(self) -> None:
        """Puts the extra state back once all rows have arrived, if they had any."""
        if self._has_extra:
            self._replay.load_extra_state(self._extra)
