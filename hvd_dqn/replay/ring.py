"""A preallocated ring of transitions with uniform sampling (Lin 1992; Mnih et al. 2015)."""

from __future__ import annotations

import numpy as np

from hvd_dqn.replay.base import Sample
from hvd_dqn.replay.frames import FramePool
from hvd_dqn.replay.observations import Observations, WholeObservations
from hvd_dqn.replay.rows import Rows
from hvd_dqn.transition import Transition, TransitionForm


class RingReplay:
    """Keeps the newest `capacity` transitions and samples them uniformly with replacement.

    All memory is taken at construction (NumPy's zero pages, so it is charged as it fills).
    """

    prioritized = False

    def __init__(self, capacity: int, form: TransitionForm, rng: np.random.Generator) -> None:
        """Preallocates the ring.

        Args:
          capacity: transitions kept on this rank.
          form: of the transitions.
          rng: the generator that sampling draws from; owned by this replay.

        Raises:
          ValueError: if the capacity is not positive.
        """
        if capacity < 1:
            raise ValueError(f"replay capacity per rank is {capacity}: it must be at least 1")
        self.capacity = capacity
        self._form = form
        self._rng = rng
        self.added = 0
        """Transitions ever added: number n lies at n % capacity for as long as it lives."""
        self.largest_priority = 1.0
        self._clear()
        self._sampled = self.blank(0, 0)

    def __len__(self) -> int:
        """Returns the number of transitions stored."""
        return min(self.added, self.capacity)

    @property
    def nbytes(self) -> int:
        """Returns the bytes that the full ring takes."""
        return sum(column.nbytes for column in self._storage) + self._observations.nbytes

    def add(self, batch: Transition) -> None:
        """Stores a batch [N], overwriting the oldest transitions; only the newest `capacity` of N survive."""
        count = len(batch.a_tm1)
        kept = min(count, self.capacity)
        newest = Transition(*(column[count - kept :] for column in batch))
        new = self._put(newest)
        start = (self.added + count - kept) % self.capacity
        head = min(kept, self.capacity - start)
        parts = [(slice(head), slice(start, start + head))]
        if head < kept:
            parts.append((slice(head, kept), slice(kept - head)))
        for rows, places in parts:
            self._write(places, Transition(*(column[rows] for column in new)))
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
        stored, drawn = self._storage, self._sampled.transitions
        self._observations.take(stored, indices, drawn)
        for column, out in zip(stored[1:4], drawn[1:4], strict=True):
            column.take(indices, axis=0, out=out, mode="clip")
        return self._sampled._replace(indices=indices)

    def blank(self, updates: int, batch_size: int) -> Sample:
        """Returns zeros in the form of `sample`; see `Replay`."""
        shape = (updates, batch_size)
        return Sample(self._form.blank(*shape), np.zeros(shape, np.int64), np.zeros(shape))

    def update_priorities(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        """Ignores them: all transitions are drawn alike."""

    def empty(self) -> Transition:
        """Returns a Transition of no rows; see `Replay`."""
        return self._form.blank(0)

    def rows(self, numbers: np.ndarray) -> Rows:
        """Returns copies of transitions by their numbers int64 [N]; see `Replay`.

        Raises:
          ValueError: if one of them is not stored.
        """
        if not ((self.added - len(self) <= numbers) & (numbers < self.added)).all():
            raise ValueError(f"transitions {numbers[:1]} to {numbers[-1:]} were asked for: {len(self)} are stored")
        places = numbers % self.capacity
        return self._observations.rows(Transition(*(column.take(places, axis=0) for column in self._storage)))

    def contents(self) -> Transition:
        """Returns copies of all stored transitions, oldest first."""
        return self.rows(np.arange(self.added - len(self), self.added)).whole()

    def overwrite(self, numbers: np.ndarray, transitions: Transition) -> None:
        """Replaces stored transitions; see `Replay`."""
        self._write(numbers % self.capacity, self._put(transitions))

    def restore(self, transitions: Transition, added: int) -> None:
        """Replaces all contents; see `Replay`."""
        if self.added:
            self._clear()
        self.added = added - len(transitions.a_tm1)
        self.add(transitions)

    def extra_state(self) -> dict[str, np.ndarray]:
        """Returns nothing: the transitions are all there is."""
        return {}

    def load_extra_state(self, extra: dict[str, np.ndarray]) -> None:
        """Does nothing."""

    def _put(self, batch: Transition) -> Transition:
        """Stores a batch's observations and returns the batch with references to them."""
        columns = {name: self._observations.put(name, getattr(batch, name)) for name in ("s_tm1", "s_t")}
        return batch._replace(**columns)

    def _write(self, places: slice | np.ndarray, new: Transition) -> None:
        """Overwrites what lies at some places by a batch with references to its observations."""
        self._observations.release(self._storage.s_tm1, places)
        self._observations.release(self._storage.s_t, places)
        for stored, column in zip(self._storage, new, strict=True):
            stored[places] = column

    def _clear(self) -> None:
        """Begins with memory in which nothing is stored."""
        form, capacity = self._form, self.capacity
        self._observations: Observations = (
            FramePool(form, capacity) if form.stacked_frames > 1 else WholeObservations(form)
        )
        self._storage = Transition(
            s_tm1=self._observations.column(capacity),
            a_tm1=np.zeros((capacity, *form.action_shape), np.int32),
            r_t=np.zeros(capacity, np.float32),
            discount_t=np.zeros(capacity, np.float32),
            s_t=self._observations.column(capacity),
        )
