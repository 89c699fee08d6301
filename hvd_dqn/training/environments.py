"""Starts the episodes of this rank's environments."""

from __future__ import annotations

from hvd_dqn.seeding import integer_seed
from hvd_dqn.shares import first_index
from hvd_dqn.training.job import Job


def reset_environments(job: Job, reset_index: int) -> None:
    """Resets all environments, seeded by (seed, global environment, reset index).

    Args:
      job: the job.
      reset_index: a number that differs between the resets of a run, so that no future repeats a past.
    """
    collector = job.acting.collector
    first = first_index(job.config.environment.num_envs, job.communicator.rank, job.communicator.size)
    collector.reset(
        [
            integer_seed(job.config.job.seed, "environment", first + i, reset_index, *job.stream)
            for i in range(collector.num_envs)
        ]
    )
