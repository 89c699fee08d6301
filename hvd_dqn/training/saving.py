"""Saves the job as it stands now."""

from __future__ import annotations

import contextlib

from hvd_dqn.checkpoint.contents import Checkpoint
from hvd_dqn.checkpoint.save import begin, settle, settle_or_warn
from hvd_dqn.distributed.agreement import on_root
from hvd_dqn.errors import UserError
from hvd_dqn.learner.learner import state_of
from hvd_dqn.training.environments import keeps_episodes, open_episodes
from hvd_dqn.training.job import Job


def save(job: Job, score: float | None) -> None:
    """Begins a checkpoint, after the one before is written; a collective.

    Args:
      job: the job.
      score: mean return of an evaluation made at this very step, or None.
    """
    env_steps, learner = job.counters.env_steps, job.learning.learner
    settle_or_warn(job.checkpoints, job.records.display.warn)  # COLLECTIVE
    try:
        _make_whole(job)  # COLLECTIVE
    except UserError as error:
        job.records.display.warn(f"{error}; training continues")
    if not keeps_episodes(job):
        job.learning.replay.add(job.acting.collector.cut())
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


def leave_whole(job: Job) -> None:
    """Saves once more if the run directory was removed after the last checkpoint; a collective.

    Raises:
      UserError: on all ranks, if it cannot be made again.
    """
    if _make_whole(job):  # COLLECTIVE
        save(job, job.evaluation.score_at(job.counters.env_steps))  # COLLECTIVE
        settle(job.checkpoints)  # COLLECTIVE


def _make_whole(job: Job) -> bool:
    """Makes what was removed from the run directory again; a collective.

    Returns:
      Whether anything was.

    Raises:
      UserError: on all ranks, if it cannot be made again.
    """

    def make() -> list[bool]:
        begun_at, store = job.checkpoints.begun_at, job.checkpoints.store
        empty = begun_at is not None and not job.checkpoints.outside_run_directory and store.empty
        removed = job.directory.make_whole()
        with contextlib.suppress(OSError):  # metrics that cannot be written are warned about at the next record
            removed |= job.records.metrics.make_whole()
        return [removed, empty]

    segments_gone = job.checkpoints.segments.forget_missing()
    gone = any(on_root(job.communicator, make))  # COLLECTIVE
    gone |= any(job.communicator.gather_json(segments_gone))  # COLLECTIVE
    if gone:
        job.records.display.warn(f"{job.directory.path} was removed, or a part of it: making it again")
    return gone
