"""One iteration's learner steps."""

from __future__ import annotations

import numpy as np

from hvd_dqn.agent.learner import NUM_STATISTICS, LearnReport, make_report
from hvd_dqn.training.job import Job


def learn(job: Job, flags: np.ndarray, healthy: bool) -> LearnReport:
    """Runs the learner steps that the env steps so far have earned; a collective, also where there are none.

    Args:
      job: the job.
      flags: float32 [F], this rank's flags.
      healthy: whether this rank can go on; if not, it brings zeros to the exchange.

    Returns:
      The report, with the ranks' flags summed.
    """
    due = job.counters.learner_steps_due(job.config.learner.train_period)
    if due == 0:
        with job.profile.phase("allreduce"):
            total = job.ranks.sum(flags)  # COLLECTIVE
        return make_report(0, 0, 0, [0.0] * NUM_STATISTICS, total.tolist())
    shape = (due, job.batch_size_per_rank)
    with job.profile.phase("sample"):
        batches = job.replay.sample(*shape) if healthy else job.replay.blank(*shape)
    return job.learner.learn(batches, flags)  # COLLECTIVE
