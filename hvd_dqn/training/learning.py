"""One iteration's learner steps, without those whose gradient is not finite and may be skipped."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hvd_dqn.learner.learner import NUM_STATISTICS, LearnReport, make_report
from hvd_dqn.training.faults import raise_not_finite, where_not_finite
from hvd_dqn.training.job import Job
from hvd_dqn.transition import Transition


class Learned(NamedTuple):
    """What an iteration's learner steps tell, equal on all ranks."""

    report: LearnReport
    """Of the updates that were applied, with the ranks' flags summed."""
    skipped: int
    """Updates that were not applied because their gradient was not finite."""


def learn(job: Job, due: int, flags: np.ndarray, healthy: bool) -> Learned:
    """Runs learner steps; a collective, also where there are none.

    Args:
      job: the job.
      due: K, the learner steps that the env steps so far have earned; equal on all ranks.
      flags: float32 [F], this rank's flags.
      healthy: whether this rank can go on; if not, it brings zeros to the exchange.

    Raises:
      JobFault: on all ranks, at the first gradient that is not finite beyond those that --skip-nonfinite allows.
    """
    if due == 0:
        with job.records.profile.phase("allreduce"):
            total = job.communicator.sum(flags)  # COLLECTIVE
        return Learned(make_report(0, 0, 0, [0.0] * NUM_STATISTICS, total.tolist()), 0)
    shape = (due, job.learning.batch_size_per_rank)
    with job.records.profile.phase("sample"):
        batches = job.learning.replay.sample(*shape) if healthy else job.learning.replay.blank(*shape)
    reports = [job.learning.learner.learn(batches, flags)]  # COLLECTIVE
    tried = 0
    while not reports[-1].finite:
        tried += reports[-1].steps + 1
        _skip(job, job.counters.updates_tried + tried, len(reports), reports[-1].local_finite)  # COLLECTIVE
        rest = Transition(*(column[tried:] for column in batches))
        if tried == due:
            return Learned(_merged(reports), len(reports))
        reports.append(job.learning.learner.learn(rest, np.zeros_like(flags)))  # COLLECTIVE
    return Learned(_merged(reports), len(reports) - 1)


def _skip(job: Job, update: int, skipped_here: int, local_finite: bool) -> None:
    """Says whose gradient it was and lets it pass, or ends the job; a collective."""
    allowed, skipped = job.config.learner.skip_nonfinite, job.counters.skipped_updates + skipped_here
    if skipped > allowed:
        raise_not_finite(job.communicator, update, local_finite, allowed)  # COLLECTIVE
    where = where_not_finite(job.communicator, local_finite)  # COLLECTIVE
    job.records.display.warn(
        f"the gradient of learner step {update} is not finite {where}: skipped on all ranks "
        f"({skipped} of {allowed} by --skip-nonfinite)"
    )


def _merged(reports: list[LearnReport]) -> LearnReport:
    """Joins the reports of the updates before, between and after skipped ones; the flags are the first's."""
    if len(reports) == 1 and reports[0].finite:
        return reports[0]
    steps = sum(report.steps for report in reports)
    sums = np.sum([report.steps * np.array([report.loss, report.abs_td_error, report.mean_q]) for report in reports], 0)
    return make_report(steps, steps, steps, sums.tolist(), reports[0].flags.tolist())
