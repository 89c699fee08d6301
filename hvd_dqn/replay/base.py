"""What the job asks of a replay."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from hvd_dqn.transition import Transition


class Sample(NamedTuple):
    """K batches of B transitions drawn from one rank's replay; overwritten by the next sample."""

    transitions: Transition  # columns [K, B, ...]
    indices: np.ndarray  # int64 [K, B], where each lies, for `update_priorities`
    probabilities: np.ndarray  # float64 [K, B], of drawing each at this draw
    weights: np.ndarray  # float32 [K, B], factors of the losses that correct for unequal probabilities


class Replay(Protocol):
    """The transitions of one rank; it knows no other.

    It is built with its capacity, the shapes of observations and actions, a generator, and those fields of the
    configuration that its `__init__` names.
    """

    capacity: int
    added: int

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

    def restore(self, transitions: Transition, added: int, extra: dict[str, np.ndarray] | None = None) -> None:
        """Replaces all contents.

        Args:
          transitions: the newest ones [N], oldest first; those beyond the capacity are dropped.
          added: how many have ever been added, N of them included.
          extra: what `extra_state` returned for these N; None where they come from elsewhere.
        """

    def extra_state(self) -> dict[str, np.ndarray]:
        """Returns what a checkpoint must hold besides the transitions, arrays by name: priorities, for example."""
