"""What the job asks of a replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from hvd_dqn.transition import Transition


class Sample(NamedTuple):
    """K batches of B transitions drawn from one rank's replay; overwritten by the next sample."""

    transitions: Transition  # columns [K, B, ...]
    indices: np.ndarray  # int64 [K, B], where each lies, for `update_priorities`
    probabilities: np.ndarray  # float64 [K, B], of drawing each at this draw


class Replay(Protocol):
    """The transitions of one rank; it knows no other.

    It is built with its capacity, the shapes of observations and actions, a generator, and those fields of the
    configuration that its `__init__` names.
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

    def newest(self, count: int) -> Transition:
        """Returns copies of the newest transitions [count], oldest first."""

    def numbered(self, first: int, count: int) -> Transition:
        """Returns copies of transitions [count] from number `first` on, counted from the first ever added."""

    def contents(self) -> Transition:
        """Returns copies of all stored transitions, oldest first."""

    def restore(self, transitions: Transition, added: int) -> None:
        """Replaces all contents.

        Args:
          transitions: the newest ones [N], oldest first; those beyond the capacity are dropped.
          added: how many have ever been added, N of them included.
        """

    def extra_state(self) -> dict[str, np.ndarray]:
        """Returns what a checkpoint must hold besides the transitions, such as priorities.

        Returns:
          Arrays by name, with a row for each stored transition, oldest first.
        """

    def load_extra_state(self, extra: dict[str, np.ndarray]) -> None:
        """Puts back what `extra_state` returned, row by row of the transitions that are stored now."""


def columns_of(replay: Replay) -> list[np.ndarray]:
    """Returns all that a replay stores, a row per transition [N, ...], oldest first: copies."""
    return [*replay.contents(), *replay.extra_state().values()]


def empty_columns(replay: Replay) -> list[np.ndarray]:
    """Returns what `columns_of` returns of an empty replay, which shows dtypes and shapes."""
    return [*replay.empty(), *(column[:0] for column in replay.extra_state().values())]


def refill(replay: Replay, columns: Sequence[np.ndarray], added: int) -> None:
    """Replaces all contents by what `columns_of` returned, or some of its rows.

    Args:
      replay: the replay.
      columns: the newest rows [N, ...], oldest first; those beyond the capacity are dropped.
      added: how many transitions have ever been added, N of them included.
    """
    count = len(Transition._fields)
    replay.restore(Transition(*columns[:count]), added)
    kept = slice(len(columns[0]) - len(replay), None)
    names = replay.extra_state()
    replay.load_extra_state({name: column[kept] for name, column in zip(names, columns[count:], strict=True)})
