"""A preallocated ring of transitions with uniform sampling (Lin 1992; Mnih et al. 2015)."""

from __future__ import annotations

import numpy as np

from hvd_dqn.replay.base import Sample
from hvd_dqn.transition import Transition


class RingReplay:
    """Keeps the newest `capacity` transitions and samples them uniformly with replacement.

    All memory is taken at construction (NumPy's zero pages, so it is charged as it fills).
    """

    prioritized = False

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype,
        rng: np.random.Generator,
        action_shape: tuple[int, ...] = (),
    ) -> None:
        """Preallocates the ring.

        Args:
          capacity: transitions kept on this rank.
          observation_shape: shape of one observation.
          observation_dtype: dtype of one observation.
          rng: the generator that sampling draws from; owned by this replay.
          action_shape: (), or (joints,) where an action has several parts.

        Raises:
          ValueError: if the capacity is not positive.
        """
        if capacity < 1:
            raise ValueError(f"replay capacity per rank is {capacity}: it must be at least 1")
        self.capacity = capacity
        self._rng = rng
        self.added = 0
        """Transitions ever added: number n lies at n % capacity for as long as it lives."""
        self.largest_priority = 1.0
        self._storage = Transition(
            s_tm1=np.zeros((capacity, *observation_shape), observation_dtype),
            a_tm1=np.zeros((capacity, *action_shape), np.int32),
            r_t=np.zeros(capacity, np.float32),
            discount_t=np.zeros(capacity, np.float32),
            s_t=np.zeros((capacity, *observation_shape), observation_dtype),
        )
        self._sampled = self.blank(0, 0)

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

    def sample(self, updates: int, batch_size: int) -> Sample:
        """Draws K batches of B uniformly with replacement; see `Replay`.

        Raises:
          ValueError: if nothing is stored.
        """
        if self.added == 0:
            raise ValueError("sample from an empty replay: add a transition first")
        sample = self.gather(self._rng.integers(len(self), size=(updates, batch_size)))
        sample.probabilities.fill(1.0 / len(self))
        return sample

    def gather(self, indices: np.ndarray) -> Sample:
        """Returns the transitions at some indices [K, B], with no probabilities yet."""
        if self._sampled.indices.shape != indices.shape:
            self._sampled = self.blank(*indices.shape)
        # Into memory of earlier samples: fresh pages for a batch of images cost more than copying them.
        for stored, drawn in zip(self._storage, self._sampled.transitions, strict=True):
            stored.take(indices, axis=0, out=drawn, mode="clip")  # no index is out of range; "raise" copies twice
        return self._sampled._replace(indices=indices)

    def blank(self, updates: int, batch_size: int) -> Sample:
        """Returns zeros in the form of `sample`; see `Replay`."""
        shape = (updates, batch_size)
        transitions = Transition(*(np.zeros((*shape, *column.shape[1:]), column.dtype) for column in self._storage))
        return Sample(transitions, np.zeros(shape, np.int64), np.zeros(shape))

    def update_priorities(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        """Ignores them: all transitions are drawn alike."""

    def empty(self) -> Transition:
        """Returns a Transition of no rows; see `Replay`."""
        return self.newest(0)

    def newest(self, count: int) -> Transition:
        """Returns copies of the newest transitions [count], oldest first.

        Raises:
          ValueError: if fewer are stored.
        """
        return self.numbered(self.added - count, count)

    def numbered(self, first: int, count: int) -> Transition:
        """Returns copies of transitions [count] from number `first` on.

        Raises:
          ValueError: if they are not stored.
        """
        if not self.added - len(self) <= first <= first + count <= self.added:
            raise ValueError(f"{count} transitions from {first} on were asked for and {len(self)} are stored")
        slots = np.arange(first, first + count) % self.capacity
        return Transition(*(column.take(slots, axis=0) for column in self._storage))

    def contents(self) -> Transition:
        """Returns copies of all stored transitions, oldest first."""
        return self.newest(len(self))

    def restore(self, transitions: Transition, added: int) -> None:
        """Replaces all contents; see `Replay`."""
        self.added = added - len(transitions.a_tm1)
        self.add(transitions)

    def extra_state(self) -> dict[str, np.ndarray]:
        """Returns nothing: the transitions are all there is."""
        return {}

    def load_extra_state(self, extra: dict[str, np.ndarray]) -> None:
        """Does nothing."""
