"""One iteration's learner steps, without those whose gradient is not finite and may be skipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hvd_dqn.learner.learner import NUM_STATISTICS, Report, make_report
from hvd_dqn.replay.base import Sample
from hvd_dqn.replay.prioritized import importance_weights
from hvd_dqn.schedules import linear_learning_rate
from hvd_dqn.training.faults import raise_not_finite, where_not_finite
from hvd_dqn.training.job import Job
from hvd_dqn.transition import Transition

ALLOWED_AT_FIRST = 4.0
"""How many times the watchdog's limit the learner steps of the first two iterations may take. Graphs are compiled in
the first one, and all ranks know their pace after the second one."""

Skip = Callable[[Job, int, int, bool], None]
"""skip(job, update, skipped_here, local_finite): lets an update pass whose gradient is not finite, or ends the job. Its
number counts skipped ones; `skipped_here` were skipped since the job's counters were last changed, this one included;
`local_finite` is whether this rank's part of the gradient was finite."""


class Learned(NamedTuple):
    """The report of an iteration's learner steps, equal on all ranks where these sum their gradients."""

    report: Report
    """Of the updates that were applied, with the ranks' signals summed."""
    skipped: list[int]
    """Numbers from 0 to K - 1 of the updates that were not applied because their gradient was not finite."""


def skip_together(job: Job, update: int, skipped_here: int, local_finite: bool, where: str = "on all ranks") -> None:
    """Reports whose gradient it was and lets it pass, or ends the job; a collective. See `Skip`.

    Args:
      job: the job.
      update: its number.
      skipped_here: how many were skipped since the job's counters were last changed.
      local_finite: whether this rank's part was finite.
      where: it was skipped, for the message.

    Raises:
      JobFault: on all ranks, if --skip-nonfinite allows no more.
    """
    allowed, skipped = job.config.learner.skip_nonfinite, job.counters.skipped_updates + skipped_here
    if skipped > allowed:
        raise_not_finite(job.communicator, update, local_finite, allowed)  # COLLECTIVE
    culprits = where_not_finite(job.communicator, local_finite)  # COLLECTIVE
    job.records.display.warn(
        f"the gradient of learner step {update} is not finite {culprits}: skipped {where} "
        f"({skipped} of {allowed} by --skip-nonfinite)"
    )


def learn(job: Job, due: int, signals: np.ndarray, healthy: bool, skip: Skip = skip_together) -> Learned:
    """Runs learner steps; a collective, also where there are none, if the learner sums the ranks' gradients.

    Args:
      job: the job.
      due: K, the learner steps that the env steps so far have earned; equal on all ranks.
      signals: float32 [F], this rank's signals.
      healthy: False after a fault on this rank, which then adds zeros to the sum.
      skip: called with each update whose gradient is not finite.

    Raises:
      JobFault: on all ranks, at the first gradient that is not finite beyond those that --skip-nonfinite allows.
    """
    shape = (due, job.learning.batch_size_per_rank)
    if due == 0:
        with job.records.profile.phase("allreduce"):
            total = job.communicator.sum(signals)  # COLLECTIVE
        return Learned(make_report(0, 0, [0.0] * NUM_STATISTICS, total.tolist(), np.zeros(shape, np.float32)), [])
    replay = job.learning.replay
    sample, weights = draw(job, due, healthy)
    report, skipped = _learn_all(job, sample.transitions, weights, signals, skip)  # COLLECTIVE
    replay.largest_priority = max(replay.largest_priority, report.largest_priority)
    if healthy:
        applied = np.delete(np.arange(due), skipped) if skipped else slice(None)
        replay.update_priorities(sample.indices[applied], report.priorities[applied])
    return Learned(report, skipped)


def draw(job: Job, updates: int, healthy: bool = True) -> tuple[Sample, np.ndarray]:
    """Draws batches of this rank's replay.

    Args:
      job: the job.
      updates: K, their number.
      healthy: False for blank batches of weight 0.

    Returns:
      The batches, and the factors float32 [K, B] of their losses.
    """
    replay, shape = job.learning.replay, (updates, job.learning.batch_size_per_rank)
    with job.records.profile.phase("sample"):
        sample = replay.sample(*shape) if healthy else replay.blank(*shape)
    return sample, _loss_weights(job, sample) if healthy else np.zeros(shape, np.float32)


def _loss_weights(job: Job, sample: Sample) -> np.ndarray:
    """Returns the factors float32 [K, B] of the transitions' losses."""
    if not job.learning.replay.prioritized:
        return np.ones(sample.indices.shape, np.float32)
    config = job.config.replay
    rise = config.importance_rise_env_steps
    risen = min(1.0, job.counters.env_steps / rise) if rise else 0.0
    exponent = config.importance_exponent + risen * (1.0 - config.importance_exponent)
    share = job.learning.batch_size_per_rank / config.global_batch_size
    return importance_weights(sample.probabilities, share, exponent)


def _learn_all(
    job: Job, batches: Transition, weights: np.ndarray, signals: np.ndarray, skip: Skip
) -> tuple[Report, list[int]]:
    """Runs the updates of all batches but those that are skipped; a collective.

    One call makes all of them, or each makes one where they are slow, so that the watchdog sees that they are made.

    Returns:
      The report of the applied updates, and the numbers of the batches that were skipped.
    """
    learner = job.learning.learner
    learner.learning_rate = present_learning_rate(job)
    piece = 1 if job.learning.one_by_one else len(weights)
    job.learning.iterations += 1
    job.watchdog.beat("learning", allow=ALLOWED_AT_FIRST if job.learning.iterations <= 2 else 1.0)
    reports, tried, skipped, began = list[Report](), 0, list[int](), time.monotonic()
    while tried < len(weights):
        now = slice(tried, tried + piece)
        own = np.zeros_like(signals) if reports else signals
        reports.append(learner.learn(Transition(*(column[now] for column in batches)), weights[now], own))  # COLLECTIVE
        job.watchdog.beat("learning")
        tried += reports[-1].steps
        if not reports[-1].finite:
            tried += 1
            skipped.append(tried - 1)
            skip(job, job.counters.updates_tried + tried, len(skipped), reports[-1].local_finite)  # COLLECTIVE
    seconds = time.monotonic() - began
    job.learning.last_seconds = seconds / ALLOWED_AT_FIRST if job.learning.iterations == 1 else seconds
    return _merged(reports), skipped


def present_learning_rate(job: Job) -> float:
    """Returns the learning rate of the schedule at the present env step."""
    return linear_learning_rate(
        job.counters.env_steps,
        start=job.config.learner.learning_rate,
        end_factor=job.config.learner.learning_rate_end,
        total_env_steps=job.config.job.total_env_steps,
    )


def _merged(reports: list[Report]) -> Report:
    """Joins the reports of an iteration's calls; the signals are the first's."""
    if len(reports) == 1 and reports[0].finite:
        return reports[0]
    steps = sum(report.steps for report in reports)
    sums = np.sum([report.steps * np.array([report.loss, report.priority, report.mean_q]) for report in reports], 0)
    tried = [report.priorities[: report.steps + 1] for report in reports]  # the last one of each was not applied
    largest = max(report.largest_priority for report in reports)
    merged = make_report(steps, steps, sums.tolist(), reports[0].signals.tolist(), np.concatenate(tried), largest)
    return merged._replace(finite=True, local_finite=True)
