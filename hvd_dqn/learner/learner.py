"""What the job asks of a learner: K synchronous updates in one call, on flat vectors.

Each update is: local gradient -> one flat vector -> one allreduce -> optimizer step. Loss, priority, mean Q and the
caller's signals ride in the same vector, so an update costs exactly one collective. A learner is handed the allreduce,
which is the identity where there is one rank.

Where losses are weighted, the vector ends in a slot of each rank for its largest weight, and one for its largest
priority. The gradient is linear in the weights, so the sum is divided by the largest weight of the global batch after
the allreduce, when every rank knows it: normalising the weights costs no collective of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.transition import Transition

NUM_STATISTICS = 3
"""Slots of the allreduced vector behind the gradient: loss, priority, Q of the action taken, each a global mean."""

Clock = Callable[[Sequence[str], Sequence[float]], None]
"""clock(phases, marks): phases that followed one another, from the last one to the first one again; phase n ran from
mark n to mark n + 1, in seconds of `time.perf_counter`."""

Vector: TypeAlias = "np.ndarray | tf.Tensor"
"""A flat float32 vector [P], in the kind of array that the learner computes with."""


class StepSettings(NamedTuple):
    """Settings of an update that every learner needs, in addition to network and algorithm."""

    optimizer: str  # a name in `OPTIMIZERS`
    learning_rate: float  # the effective step size of the first updates
    max_grad_norm: float  # L2 norm to which the global gradient is clipped; 0 for no clipping
    batch_size_per_rank: int  # B
    first_row: int  # row of the global batch at which this rank's B rows begin
    global_batch_size: int  # rows of the global batch
    num_signals: int  # F, numbers that ride along
    optimizer_epsilon: float = 0.0  # 0 for the optimizer's own
    weighted: bool = False  # whether weights are to be divided by the largest one of the global batch
    rank: int = 0  # which of the W slots for the largest weights is this rank's
    size: int = 1  # W


class Report(NamedTuple):
    """Results of K updates; equal on all ranks but for `local_finite` and `priorities`."""

    steps: int  # updates applied; less than K if a gradient was not finite
    finite: bool  # True if all K global gradients were finite
    local_finite: bool  # True if this rank's own gradient was finite in the first update whose sum was not
    loss: float  # mean over the applied global batches
    priority: float  # mean of the priorities, |td| for most algorithms
    mean_q: float  # of the actions taken
    signals: np.ndarray  # float32 [F], sums over the ranks
    priorities: np.ndarray  # float32 [K, B], of this rank's transitions
    largest_priority: float  # of all ranks' in the applied updates; 0 where losses are not weighted


class Learner(Protocol):
    """Owns the online and target parameters and the optimizer's slots, each a flat float32 vector [P]."""

    layout: ParameterLayout
    online: Vector
    target: Vector
    step: int
    learning_rate: float
    """The effective step size of the next updates."""

    @property
    def slots(self) -> tuple[Vector, ...]:
        """Returns the optimizer's slots."""

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Returns the optimizer's names of the slots."""

    def learn(self, batches: Transition, weights: np.ndarray, signals: np.ndarray) -> Report:
        """Runs K updates; every rank must call it with the same K.

        Args:
          batches: K local batches, columns [K, batch_size_per_rank, ...].
          weights: float32 [K, batch_size_per_rank], factors of the transitions' losses; where losses are weighted, up
            to a factor that is the same on all ranks.
          signals: float32 [F], this rank's numbers; their sums over the ranks come back.

        Returns:
          The report. A gradient that is not finite (on any rank) is not applied, nor is any after it.
        """

    def load(self, online: Vector, target: Vector, slots: Sequence[Vector]) -> None:
        """Takes copies of these vectors."""

    def load_target(self, target: Vector) -> None:
        """Takes a copy of the target parameters."""


def no_clock(phases: Sequence[str], marks: Sequence[float]) -> None:
    """Ignores the time."""


def make_report(
    local_steps: float,
    steps: float,
    sums: Sequence[float],
    signals: Sequence[float],
    priorities: np.ndarray,
    largest_priority: float = 0.0,
) -> Report:
    """Builds the report of K updates.

    Args:
      local_steps: K, less 1 if this rank's own gradient was not finite in the first update whose sum was not.
      steps: how many global gradients were applied.
      sums: of the statistics over the applied updates.
      signals: sums over the ranks.
      priorities: float32 [K, B].
      largest_priority: of all ranks' in the applied updates.
    """
    updates = len(priorities)
    loss, priority, mean_q = (float(total) / max(1.0, float(steps)) for total in sums)
    return Report(
        steps=int(steps),
        finite=bool(steps == updates),
        local_finite=bool(local_steps == updates),
        loss=loss,
        priority=priority,
        mean_q=mean_q,
        signals=np.array(signals, np.float32),
        priorities=priorities,
        largest_priority=largest_priority,
    )


def state_of(learner: Learner) -> dict[str, np.ndarray]:
    """Returns copies of online, target and slots by name, float32 [P] each."""
    slots = {f"optimizer/{name}": slot for name, slot in zip(learner.slot_names, learner.slots, strict=True)}
    vectors = {"online": learner.online, "target": learner.target, **slots}
    return {name: np.array(vector) for name, vector in vectors.items()}


def load_state(learner: Learner, state: dict[str, np.ndarray], step: int) -> None:
    """Puts a state back.

    Raises:
      ValueError: if a vector is missing or has another length than this network's.
    """
    names = [f"optimizer/{name}" for name in learner.slot_names]
    missing = [name for name in ("online", "target", *names) if name not in state]
    if missing:
        raise ValueError(f"the state lacks {missing}: it was saved with another --optimizer")
    shape = (learner.layout.total,)
    wrong = {
        name: f"{vector.dtype}{list(vector.shape)}"
        for name, vector in state.items()
        if vector.shape != shape or vector.dtype != np.float32
    }
    if wrong:
        raise ValueError(f"the state's vectors {wrong} do not fit a network of {learner.layout.total} parameters")
    learner.load(state["online"], state["target"], [state[name] for name in names])
    learner.step = step
