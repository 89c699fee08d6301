"""Saving and restoring the job: rank 0 touches the disk, all ranks learn the outcome."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvd_dqn.agent.learner import Vector, load_state, state_of
from hvd_dqn.counters import Counters
from hvd_dqn.errors import UserError
from hvd_dqn.job.checkpoint import Checkpoint
from hvd_dqn.job.statistics import Speed
from hvd_dqn.parallel.agreement import on_root
from hvd_dqn.training.job import Job


def save(job: Job, score: float | None) -> None:
    """Writes a checkpoint on rank 0; a collective.

    Args:
      job: the job.
      score: mean return of an evaluation made at this very step, or None.

    Raises:
      UserError: on all ranks, if it cannot be written; earlier checkpoints stay good.
    """

    def write() -> None:
        learner = state_of(job.learner)
        state = {
            "counters": job.counters.as_dict(),
            "recent_episodes": job.recent.state(),
            "best_score": job.best_score,
        }
        checkpoint = Checkpoint(job.counters.env_steps, score, learner, state)
        job.store.save(checkpoint, job.learner.layout.views(learner["online"]))

    job.watchdog.beat("writing a checkpoint", allow=2.0)
    try:
        on_root(job.ranks, write)  # COLLECTIVE
    except UserError as error:
        raise UserError(
            f"the checkpoint at env step {job.counters.env_steps:,} could not be written: {error}"
        ) from None


def restore(job: Job) -> None:
    """Puts rank 0's newest good checkpoint back and sends the learner's state to all; a collective.

    Without --resume it only broadcasts rank 0's initial state.

    Raises:
      UserError: on all ranks, if there is no usable checkpoint or it does not fit the configuration.
    """
    if job.config.job.resume:
        state = on_root(job.ranks, lambda: _load_newest(job))  # COLLECTIVE
        job.counters = Counters(**state["counters"])
        job.recent.load(state["recent_episodes"])
        job.best_score = state["best_score"]
        job.learner.step = job.counters.learner_steps
    job.speed = Speed(job.counters.env_steps, job.counters.learner_steps)
    job.counters.wait_for_replay(job.config.replay.learning_starts)
    broadcast_learner(job)


def broadcast_learner(job: Job) -> None:
    """Gives rank 0's weights, target and optimizer state to all ranks; a collective."""
    learner = job.learner
    online, target, *slots = (job.ranks.broadcast(v) for v in (learner.online, learner.target, *learner.slots))
    learner.load(online, target, slots)
    job.acting_values.load(learner.online)


def best_parameters(job: Job) -> tuple[int | None, Vector]:
    """Returns the best checkpoint's env steps and online parameters [P] on all ranks; a collective.

    Where no checkpoint has a score, the steps are None and the parameters the present ones.
    """
    best: list[np.ndarray] = []

    def read() -> int | None:
        checkpoint = job.store.best()
        if checkpoint is not None:
            best.append(checkpoint.learner["online"])
        return checkpoint.env_steps if checkpoint else None

    env_steps = on_root(job.ranks, read)  # COLLECTIVE
    own = best[0] if best else job.learner.online
    return env_steps, job.ranks.broadcast(own)  # COLLECTIVE


def _load_newest(job: Job) -> dict[str, Any]:
    """Loads the newest good checkpoint into rank 0's learner and returns its state."""
    checkpoint, passed_over = job.store.newest_good()
    for line in passed_over:
        job.display.message(line)
    try:
        load_state(job.learner, checkpoint.learner, checkpoint.state["counters"]["learner_steps"])
    except ValueError as error:
        raise UserError(f"{job.directory.path} was trained with another configuration: {error}") from None
    total = job.config.job.total_env_steps
    if checkpoint.env_steps >= total:
        raise UserError(
            f"the run has done {checkpoint.env_steps:,} of {total:,} env steps already: "
            "raise --total-env-steps to go on"
        )
    job.metrics.cut_after(checkpoint.env_steps)
    job.display.message(f"resumed from the checkpoint at env step {checkpoint.env_steps:,}")
    return checkpoint.state
