"""Starts the episodes of this rank's environments."""

from __future__ import annotations

from hvd_dqn.training.job import Job


def reset_environments(job: Job, reset_index: int) -> None:
    """Starts all episodes anew, seeded by (seed, global environment, reset index).

    Args:
      job: the job.
      reset_index: a number that differs between the resets of a run, so that no future repeats a past.
    """
    job.acting.collector.reset(reset_index)
