"""What the job asks of a learner: K synchronous Q-learning updates in one call, on flat vectors.

Each update is: local gradient -> one flat vector -> one allreduce -> optimizer step. Loss, |td|, mean Q and the
caller's flags ride in the same vector, so an update costs exactly one collective. A learner knows no ranks: it is
handed the exchange, which is the identity where there is one rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.transition import Transition

NUM_STATISTICS = 3
"""Slots of the exchanged vector behind the gradient: loss, |td|, Q of the chosen action, each a global mean."""

Clock = Callable[[Sequence[str], Sequence[float]], None]
"""clock(phases, marks): is told that phases of updates followed one another, from the last one to the first one again;
phase n ran from mark n to mark n + 1, in seconds of `time.perf_counter`."""

Vector: TypeAlias = "np.ndarray | tf.Tensor"
"""A flat float32 vector [P], in the kind of array that the learner computes with."""


class LearnReport(NamedTuple):
    """What K updates tell, equal on all ranks."""

    steps: int  # updates applied; less than K if a gradient was not finite
    finite: bool  # whether all K global gradients were finite
    local_finite: bool  # whether this rank's part of the first that was not, was: NOT equal on all ranks
    loss: float  # mean over the K global batches
    abs_td_error: float
    mean_q: float  # of the actions taken
    flags: np.ndarray  # float32 [F], sums over the ranks


class Learner(Protocol):
    """Owns the online and target parameters and the optimizer's slots, each a flat float32 vector [P]."""

    layout: ParameterLayout
    online: Vector
    target: Vector
    slots: tuple[Vector, ...]
    step: int
    slot_names: tuple[str, ...]

    def learn(self, batches: Transition, flags: np.ndarray) -> LearnReport:
        """Runs K updates; every rank must call it with the same K.

        Args:
          batches: K local batches, columns [K, batch_size_per_rank, ...].
          flags: float32 [F], this rank's flags; their sums over the ranks come back.

        Returns:
          The report. A gradient that is not finite (on any rank) is not applied, nor is any after it.
        """

    def load(self, online: Vector, target: Vector, slots: Sequence[Vector]) -> None:
        """Takes copies of these vectors."""

    def load_target(self, target: Vector) -> None:
        """Takes a copy of the target parameters."""


def no_clock(phases: Sequence[str], marks: Sequence[float]) -> None:
    """Takes no notice of the time."""


def make_report(
    updates: int, local_steps: float, steps: float, sums: Sequence[float], flags: Sequence[float]
) -> LearnReport:
    """Builds the report of K updates.

    Args:
      updates: K.
      local_steps: K, less 1 if this rank's part of the first global gradient that was not finite was not either.
      steps: how many global gradients were applied.
      sums: of the statistics over the applied updates.
      flags: sums over the ranks.
    """
    loss, abs_td_error, mean_q = (float(total) / max(1.0, float(steps)) for total in sums)
    return LearnReport(
        steps=int(steps),
        finite=bool(steps == updates),
        local_finite=bool(local_steps == updates),
        loss=loss,
        abs_td_error=abs_td_error,
        mean_q=mean_q,
        flags=np.array(flags, np.float32),
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
