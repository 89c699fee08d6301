"""Saves the job as it stands now."""

from __future__ import annotations

from hvd_dqn.checkpoint.save import begin, settle_or_warn
from hvd_dqn.checkpoint.store import Checkpoint
from hvd_dqn.learner.learner import state_of
from hvd_dqn.training.environments import open_episodes
from hvd_dqn.training.job import Job


def save(job: Job, score: float | None) -> None:
    """Begins a checkpoint, after the one before is written; a collective.

    Args:
      job: the job.
      score: mean return of an evaluation made at this very step, or None.
    """
    env_steps, learner = job.counters.env_steps, job.learning.learner
    settle_or_warn(job.checkpoints, job.records.display.warn)  # COLLECTIVE
    begin(
        job.checkpoints,
        env_steps,
        lambda: Checkpoint(env_steps, score, state_of(learner), job.shared_state(), []),
        learner.layout.views,
        replay=job.learning.replay,
        generators=job.generators,
        finished_episodes=job.acting.finished_episodes,
        open_episodes=open_episodes(job),  # COLLECTIVE
    )  # COLLECTIVE
