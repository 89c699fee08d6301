"""A preallocated ring of transitions with uniform sampling (Lin 1992; Mnih et al. 2015)."""

from __future__ import annotations

import numpy as np

from hvd_dqn.transition import Transition


class RingReplay:
    """Keeps the newest `capacity` transitions and samples them uniformly with replacement.

    All memory is taken at construction (NumPy's zero pages, so it is charged as it fills).
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype,
        rng: np.random.Generator,
    ) -> None:
        """Preallocates the ring.

        Args:
          capacity: transitions kept on this rank.
          observation_shape: shape of one observation.
          observation_dtype: dtype of one observation.
          rng: the generator that sampling draws from; owned by this replay.

        Raises:
          ValueError: if the capacity is not positive.
        """
        if capacity < 1:
            raise ValueError(f"replay capacity per rank is {capacity}: it must be at least 1")
        self.capacity = capacity
        self._rng = rng
        self.added = 0
        """Transitions ever added: number n lies at n % capacity for as long as it lives."""
        self._storage = Transition(
            s_tm1=np.zeros((capacity, *observation_shape), observation_dtype),
            a_tm1=np.zeros(capacity, np.int32),
            r_t=np.zeros(capacity, np.float32),
            terminated=np.zeros(capacity, np.bool_),
            truncated=np.zeros(capacity, np.bool_),
            s_t=np.zeros((capacity, *observation_shape), observation_dtype),
        )

    def __len__(self) -> int:
        """Returns the number of transitions stored."""
        return min(self.added, self.capacity)

    @property
    def nbytes(self) -> int:
        """Returns the bytes that the full ring takes."""
        return sum(column.nbytes for column in self._storage)

    def add(self, batch: Transition) -> None:
        """Stores a batch [N], overwriting the oldest transitions; only the newest `capacity` of N survive."""
        count = len(batch.a_tm1)
        kept = min(count, self.capacity)
        start = (self.added + count - kept) % self.capacity
        head = min(kept, self.capacity - start)
        for stored, new in zip(self._storage, batch, strict=True):
            newest = new[count - kept :]
            stored[start : start + head] = newest[:head]
            if head < kept:
                stored[: kept - head] = newest[head:]
        self.added += count

    def restore(self, transitions: Transition, added: int) -> None:
        """Replaces all contents.

        Args:
          transitions: the newest ones [N], oldest first; those beyond the capacity are dropped.
          added: how many have ever been added, N of them included.
        """
        self.added = added - len(transitions.a_tm1)
        self.add(transitions)

    def sample(self, *shape: int) -> Transition:
        """Draws transitions uniformly with replacement.

        Args:
          *shape: the leading shape of the result, [K, B] for K batches of B.

        Returns:
          A Transition whose columns have the leading shape `shape`; copies, never views.

        Raises:
          ValueError: if nothing is stored.
        """
        if self.added == 0:
            raise ValueError("sample from an empty replay: add a transition first")
        index = self._rng.integers(len(self), size=shape)
        return self._at(index)

    def blank(self, *shape: int) -> Transition:
        """Returns zeros in the form of `sample`: what a rank that cannot go on brings to its last exchange."""
        return Transition(*(np.zeros((*shape, *column.shape[1:]), column.dtype) for column in self._storage))

    def contents(self) -> Transition:
        """Returns copies of all stored transitions, oldest first."""
        return self.newest(len(self))

    def newest(self, count: int) -> Transition:
        """Returns copies of the newest transitions [count], oldest first.

        Raises:
          ValueError: if fewer are stored.
        """
        if not 0 <= count <= len(self):
            raise ValueError(f"{count} transitions were asked for and {len(self)} are stored")
        return self._at(self._slots(count))

    def _at(self, slots: np.ndarray) -> Transition:
        """Returns copies of what lies at these places; `take`, since indexing copies short rows ten times slower."""
        return Transition(*(column.take(slots, axis=0) for column in self._storage))

    def _slots(self, count: int) -> np.ndarray:
        """Returns the places of the newest transitions, oldest first."""
        return np.arange(self.added - count, self.added) % self.capacity
