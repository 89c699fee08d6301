"""The learner steps of `--strategy local`: each rank makes its own, and the ranks average what came of them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np

from hvd_dqn.learner.learner import NUM_STATISTICS, Report
from hvd_dqn.run.averages import LearnerAverages
from hvd_dqn.training.faults import raise_weights_not_finite
from hvd_dqn.training.job import Job, Update, Updates
from hvd_dqn.training.learning import ALLOWED_AT_FIRST, learn, skip_together
from hvd_dqn.training.signals import Signals
from hvd_dqn.training.updates import learner_steps_due

_NONE = np.zeros(0, np.float32)
_SLOWER = 4.0
"""How many times as long as it has worked itself a rank waits for a slower one, in addition to the watchdog's limit."""


@dataclass
class _Round:
    """What happened on a rank since all ranks last synchronised."""

    tried: int = 0
    """Updates; equal on all ranks."""
    skipped: list[int] = field(default_factory=list)
    """Numbers of those that were not applied on this rank, from 0."""
    signals: Signals = field(default_factory=Signals)
    averages: LearnerAverages = field(default_factory=LearnerAverages)
    began: float = 0.0
    """When its first iteration began, by `time.monotonic`; 0 before it."""


class LocalUpdates(Updates):
    """Learns after collecting, without the other ranks; every H updates all ranks average weights and optimizer state.

    Local SGD, Stich (2019), "Local SGD converges fast and communicates little", Algorithm 1,
    https://arxiv.org/abs/1805.09767. A rank's weights count as many times as its batch has rows, B_r of B.

    The ranks synchronise in the iteration in which H updates are complete, in the last one, and in each before learning
    begins. All that a rank knows alone waits until then. In an iteration of more than H updates they also average after
    every H of them.
    """

    def __init__(self, period: int) -> None:
        """Begins as the ranks do after an average: all with the same weights.

        Args:
          period: H.
        """
        self._period = period
        self._has_averaged = False
        self._round = _Round()

    def begin(self, job: Job) -> None:
        """Takes note of when a round begins."""
        self._round.began = self._round.began or time.monotonic()

    def finish(self, job: Job, own: Signals) -> Update:
        """Runs K updates of this rank alone; a collective if H are complete, see the class.

        Raises:
          JobFault: on all ranks, if weights are not finite or more gradients were not than --skip-nonfinite allows.
        """
        self._round.signals = self._round.signals.joined(own)
        due = learner_steps_due(job) - self._round.tried
        for number, updates in enumerate(parts_of(due, self._period)):
            if number > 0:
                self._average(job, _NONE)  # COLLECTIVE
            self._learn(job, updates, healthy=not own.fault)
        if self._synchronises(job):
            return self._synchronise(job)  # COLLECTIVE
        if due > 0:
            job.acting.values.load(job.learning.learner.online)
        return Update(_report(0, [0.0] * NUM_STATISTICS), 0, None)

    def _synchronises(self, job: Job) -> bool:
        """Returns whether the ranks synchronise in this iteration; equal on all ranks."""
        counters = job.counters
        not_begun = self._round.tried == 0 and counters.updates_tried <= counters.learning_from_learner_step
        last = counters.env_steps >= job.config.job.total_env_steps
        return self._round.tried >= self._period or not_begun or last

    def _learn(self, job: Job, updates: int, healthy: bool) -> None:
        """Runs updates on this rank; those whose gradient is not finite are left out until the ranks synchronise."""
        learning = job.learning  # no rank has to agree: no collective lies between the calls
        learning.one_by_one |= learning.last_seconds > learning.long_seconds
        report, skipped = learn(job, updates, Signals().vector(), healthy, skip=lambda *_: None)
        now = self._round
        now.averages.add(report.steps, report.loss, report.priority, report.mean_q)
        now.skipped += [now.tried + number for number in skipped]
        now.tried += updates

    def _synchronise(self, job: Job) -> Update:
        """Sums what each rank knows alone, and averages weights if there were updates; a collective."""
        communicator, replay, counters, now = job.communicator, job.learning.replay, job.counters, self._round
        means = [mean or 0.0 for mean in now.averages.take().values()]
        skipped, priorities = np.zeros(now.tried), np.zeros(communicator.size)
        skipped[now.skipped], priorities[communicator.rank] = 1.0, replay.largest_priority
        own = [np.multiply(means, job.learning.batch_size_per_rank), now.signals.vector(), skipped, priorities]
        riders = np.concatenate(own).astype(np.float32)
        total = self._average(job, riders) if now.tried else communicator.sum(riders)  # COLLECTIVE
        sums, signals, skipped, priorities = np.split(total, np.cumsum([len(part) for part in own[:-1]]))
        replay.largest_priority = float(priorities.max())
        left_out = np.flatnonzero(skipped).tolist()
        for count, number in enumerate(left_out, start=1):
            update = counters.updates_tried + number + 1
            skip_together(job, update, count, number not in now.skipped, where="there")  # COLLECTIVE
        report = _report(now.tried - len(left_out), (sums / job.config.replay.global_batch_size).tolist())
        job.learning.learner.step = counters.learner_steps + report.steps
        self._round = _Round()
        return Update(report, len(left_out), Signals.of(signals))

    def _average(self, job: Job, riders: np.ndarray) -> np.ndarray:
        """Gives all ranks the mean of their weights and optimizer state; a collective.

        Args:
          job: the job.
          riders: float32 [N], numbers that ride along.

        Returns:
          float32 [N], their sums over the ranks.
        """
        learner, counters = job.learning.learner, job.counters
        vectors = [np.asarray(vector) for vector in (learner.online, *learner.slots)]  # [P] each
        own = np.concatenate([*(vector * np.float32(job.learning.batch_size_per_rank) for vector in vectors), riders])
        limit = job.config.runtime.stall_timeout_seconds or math.inf
        worked = time.monotonic() - self._round.began
        allow = (1.0 if self._has_averaged else ALLOWED_AT_FIRST) + _SLOWER * worked / limit
        job.watchdog.beat("averaging the weights", allow)
        with job.records.profile.phase("allreduce"):
            total = job.communicator.sum(own)  # COLLECTIVE
        weights, sums = np.split(total, [len(total) - len(riders)])
        if not np.isfinite(weights).all():
            finite = bool(np.isfinite(own).all())
            raise_weights_not_finite(job.communicator, counters.updates_tried + self._round.tried, finite)  # COLLECTIVE
        online, *slots = np.split(weights / np.float32(job.config.replay.global_batch_size), len(vectors))
        learner.load(online, learner.target, slots)
        self._has_averaged = True
        return sums


def parts_of(updates: int, period: int) -> list[int]:
    """Splits an iteration's K updates where the ranks average: after every H, if there are more.

    Args:
      updates: K.
      period: H.
    """
    if updates <= period:
        return [updates] * (updates > 0)
    whole, rest = divmod(updates, period)
    return [period] * whole + [rest] * (rest > 0)


def _report(steps: int, means: list[float]) -> Report:
    """Returns the report of updates by their means of loss, priority and Q."""
    nothing = np.zeros(0, np.float32)
    loss, priority, mean_q = means
    return Report(steps, True, True, loss, priority, mean_q, signals=nothing, priorities=nothing, largest_priority=0.0)
