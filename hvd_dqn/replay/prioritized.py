"""Prioritised experience replay, proportional variant (Schaul et al. 2016), of one rank.

Rank r draws transition i with probability p_i / S_r from its own replay and contributes B_r of the global batch's B
transitions. Of one transition of the global batch, the probability is therefore P(i) = B_r / B * p_i / S_r, and
`importance_weights` corrects for just that: over all ranks together the estimate is that of one replay which holds
everything, however unlike the ranks' transitions and priorities are.
"""

from __future__ import annotations

import numpy as np

from hvd_dqn.errors import UserError
from hvd_dqn.replay.base import Sample
from hvd_dqn.replay.ring import RingReplay
from hvd_dqn.replay.sum_tree import SumTree
from hvd_dqn.transition import Transition, TransitionForm

_SMALLEST = np.float32(1e-6)
"""Added to each priority, so that every transition can be drawn again."""


class PrioritizedReplay(RingReplay):
    """Draws in proportion to priority ** priority_exponent. A new transition has the largest priority of the job."""

    prioritized = True

    def __init__(
        self,
        capacity: int,
        form: TransitionForm,
        rng: np.random.Generator,
        priority_exponent: float = 0.6,
    ) -> None:
        """Preallocates ring and tree; see `RingReplay`.

        Args:
          capacity: transitions kept on this rank.
          form: of the transitions.
          rng: the generator that sampling draws from; owned by this replay.
          priority_exponent: alpha.

        Raises:
          ValueError: if the capacity is not positive.
        """
        super().__init__(capacity, form, rng)
        self._tree = SumTree(capacity)
        self._exponent = priority_exponent

    @property
    def nbytes(self) -> int:
        """Returns the bytes that the full replay takes."""
        return super().nbytes + self._tree.nbytes

    @property
    def sum_of_priorities(self) -> float:
        """Returns the sum over the stored transitions of priority ** priority_exponent."""
        return float(self._tree.total)

    @property
    def bound_of_priorities(self) -> float:
        """Returns the largest priority of the job so far, to the power of priority_exponent."""
        return float(self._power(np.float32(self.largest_priority)))

    def add(self, batch: Transition) -> None:
        """Stores a batch [N] with the largest priority of the job."""
        count = min(len(batch.a_tm1), self.capacity)
        super().add(batch)
        self._tree.set(self._places(count), self._power(np.float32(self.largest_priority)))

    def sample(self, updates: int, batch_size: int) -> Sample:
        """Draws K batches of B in proportion to the priorities, with replacement; see `Replay`.

        Raises:
          ValueError: if nothing is stored.
        """
        if self.added == 0:
            raise ValueError("sample from an empty replay: add a transition first")
        total = self._tree.total
        indices = self._tree.find((1.0 - self._rng.random(updates * batch_size)) * total)
        sample = self.gather(indices.reshape(updates, batch_size))
        np.divide(self._tree.get(sample.indices), total, out=sample.probabilities)
        return sample

    def update_priorities(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        """Takes the learner's priorities; of one transition's several, the last."""
        self._tree.set(indices, self._power(priorities))

    def overwrite(self, numbers: np.ndarray, transitions: Transition) -> None:
        """Replaces stored transitions; the new ones have the largest priority of the job."""
        super().overwrite(numbers, transitions)
        self._tree.set(numbers % self.capacity, self._power(np.float32(self.largest_priority)))

    def restore(self, transitions: Transition, added: int) -> None:
        """Replaces all contents; the transitions are new ones. See `Replay`."""
        self._tree = SumTree(self.capacity)
        super().restore(transitions, added)

    def extra_state(self) -> dict[str, np.ndarray]:
        """Returns the powers of the priorities, float32 [N], oldest transition first."""
        return {"priorities": self._tree.get(self._places(len(self))).astype(np.float32)}

    def load_extra_state(self, extra: dict[str, np.ndarray]) -> None:
        """Puts the powers of the priorities back.

        Raises:
          UserError: if they are no such numbers.
        """
        powers = extra["priorities"]
        if powers.shape != (len(self),) or not (np.isfinite(powers) & (powers > 0.0)).all():
            raise UserError("the checkpoint's priorities cannot be used: resume it with --replay uniform")
        self._tree.set(self._places(len(self)), powers)

    def _power(self, priorities: np.ndarray | np.float32) -> np.ndarray:
        """Returns float32 [...] of float32 [...], what a transition's chance to be drawn is proportional to."""
        return np.asarray((priorities + _SMALLEST) ** self._exponent)

    def _places(self, count: int) -> np.ndarray:
        """Returns where the newest transitions [count] lie, oldest first."""
        return np.arange(self.added - count, self.added) % self.capacity


def importance_weights(probabilities: np.ndarray, share: float, exponent: float) -> np.ndarray:
    """Returns P ** -beta, which corrects for unequal draws where beta is 1 (Schaul et al. 2016, section 3.4).

    The factor N ** -beta of the paper is left out: weights are divided by the largest one of the global batch, which
    only the sum over the ranks shows, and there it cancels.

    Args:
      probabilities: float64 [K, B_r], of drawing each transition on this rank.
      share: B_r / B, this rank's part of the global batch.
      exponent: beta.

    Returns:
      float32 [K, B_r].
    """
    return ((share * probabilities) ** -exponent).astype(np.float32)
