"""Restoring the job: each rank its own replay, rank 0 the rest; all ranks learn the outcome."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvd_dqn.checkpoint.keepalive import patiently
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.segments import read
from hvd_dqn.config import RESUME_AUTO
from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.learner.learner import Vector, load_state
from hvd_dqn.run.averages import Speed
from hvd_dqn.run.directory import METRICS_FILE
from hvd_dqn.training.job import Job
from hvd_dqn.transition import Transition


def restore(job: Job) -> None:
    """Puts the newest good checkpoint back: rank 0's state on all ranks, and each rank's own; a collective.

    Without --resume, and with --resume auto where there is none, it only broadcasts rank 0's initial state.

    Raises:
      UserError: on all ranks, if there is no usable checkpoint or it does not fit the configuration.
    """
    state = None
    if job.config.job.resume:
        load = (lambda: _load_newest(job)) if job.communicator.rank == 0 else lambda: None
        state = on_root(job.communicator, patiently(job, "reading the checkpoint", load))  # COLLECTIVE
    if state is not None:
        try:
            job.take_shared_state(state)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{job.directory.path} holds a state that this program cannot use ({repr(error)[:300]}): remove the "
                "checkpoint to go on from the one before"
            ) from None
        ranks = [RankState.from_json(record) for record in state["ranks"]]
        _restore_ranks(job, ranks, state["lost"] == 0)  # COLLECTIVE
    else:
        job.counters.wait_for_replay(job.config.replay.learning_starts)
    job.speed = Speed(job.counters.env_steps, job.counters.learner_steps)
    broadcast_learner(job)


def broadcast_learner(job: Job) -> None:
    """Gives rank 0's weights, target and optimizer state to all ranks; a collective."""
    learner = job.learner
    online, target, *slots = (job.communicator.broadcast(v) for v in (learner.online, learner.target, *learner.slots))
    learner.load(online, target, slots)
    job.acting_values.load(learner.online)


def best_parameters(job: Job) -> tuple[int | None, Vector]:
    """Returns the best checkpoint's env steps and online parameters [P] on all ranks; a collective.

    Where no checkpoint has a score, the steps are None and the parameters the present ones.
    """
    best: list[np.ndarray] = []

    def find() -> int | None:
        checkpoint, passed_over = job.store.best()
        for line in passed_over:
            job.display.warn(line)
        if checkpoint is not None:
            best.append(checkpoint.learner["online"])
        return checkpoint.env_steps if checkpoint else None

    look = patiently(
        job, "reading the best checkpoint", find if job.communicator.rank == 0 else lambda: None
    )  # COLLECTIVE
    env_steps = on_root(job.communicator, look)  # COLLECTIVE
    own = best[0] if best else job.learner.online
    return env_steps, job.communicator.broadcast(own)  # COLLECTIVE


def _load_newest(job: Job) -> dict[str, Any] | None:
    """Loads the newest good checkpoint into rank 0's learner and returns its state; None where there is none yet."""
    if job.store.empty:
        if job.config.job.resume != RESUME_AUTO:
            job.display.warn(f"{job.directory.path} has no checkpoint yet: the run begins anew")
        job.metrics.cut_after(-1)
        return None
    checkpoint, passed_over = job.store.newest_good(job.config.job.allow_missing_replay)
    for line in passed_over:
        job.display.warn(line)
    try:
        load_state(job.learner, checkpoint.learner, 0)
    except ValueError as error:
        raise UserError(f"{job.directory.path} was trained with another configuration: {error}") from None
    saved = _saved_metrics(job)
    if saved is not None:
        job.metrics.cut_after(checkpoint.env_steps, saved)
    total = job.config.job.total_env_steps
    only_to_evaluate = checkpoint.env_steps < total + job.config.environment.num_envs and not job.metrics.holds(
        "final_evaluation", checkpoint.env_steps
    )
    if checkpoint.env_steps >= total and not only_to_evaluate and job.config.job.resume != RESUME_AUTO:
        raise UserError(
            f"the run has done {checkpoint.env_steps:,} of {total:,} env steps already: "
            "raise --total-env-steps to go on"
        )
    job.metrics.cut_after(checkpoint.env_steps)
    job.display.message(f"resumed from the checkpoint at env step {checkpoint.env_steps:,}")
    return {**checkpoint.state, "ranks": [rank.to_json() for rank in checkpoint.ranks], "lost": checkpoint.lost}


def _saved_metrics(job: Job) -> bytes | None:
    """Returns the metrics beside checkpoints that lie elsewhere: the run may have gone on on another machine."""
    path = job.store.folder / METRICS_FILE
    return path.read_bytes() if job.saves_elsewhere and path.exists() else None


def _restore_ranks(job: Job, ranks: list[RankState], whole: bool) -> None:
    """Gives each rank its own state back; a collective.

    Where the shares are others, or transitions are missing, it deals the replay out anew.
    """
    own = job.communicator.rank
    fits = whole and len(ranks) == job.communicator.size and ranks[own].capacity == job.replay.capacity
    if job.communicator.sum(np.array([float(fits)]))[0] == job.communicator.size:  # COLLECTIVE
        state = ranks[own]
        held = raise_on_any_rank(
            job.communicator, patiently(job, "reading the replay", lambda: _read_replay(job, state))
        )  # COLLECTIVE
        job.replay.restore(held, state.added)
        job.segments.adopt(state.segments)
        raise_on_any_rank(job.communicator, lambda: _restore_generators(job, state))  # COLLECTIVE
        job.finished_episodes = state.finished_episodes
        return
    dealt = raise_on_any_rank(
        job.communicator, patiently(job, "reading the replay", lambda: _deal(job, ranks))
    )  # COLLECTIVE
    job.replay.restore(dealt, len(dealt.a_tm1))
    if own == 0:
        job.finished_episodes = [episode for state in ranks for episode in state.finished_episodes]
    counts = job.communicator.gather_json(len(job.replay))  # COLLECTIVE
    if min(counts) == 0:
        job.counters.wait_for_replay(job.config.replay.learning_starts)
    before = f"{sum(state.stored for state in ranks):,} transitions on {len(ranks)} rank(s)"
    job.display.message(f"the replay of {before} was dealt out anew: {sum(counts):,} on {len(counts)}")


def _restore_generators(job: Job, state: RankState) -> None:
    """Puts this rank's random generators back.

    Raises:
      UserError: if their state is none.
    """
    try:
        for name, generator in job.generators.items():
            generator.bit_generator.state = state.generators[name]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"the checkpoint's generators cannot be used ({repr(error)[:300]})") from None


def _read_replay(job: Job, state: RankState) -> Transition:
    """Reads the transitions that a rank held, oldest first.

    Raises:
      UserError: if a segment cannot be used.
    """
    try:
        held = read(job.store.replay_folder, state.segments, job.replay.empty())
    except CheckpointError as error:
        raise UserError(str(error)) from None
    return Transition(*(column[len(column) - state.stored :] for column in held))


def _deal(job: Job, ranks: list[RankState]) -> Transition:
    """Reads this rank's share of all ranks' transitions, oldest first.

    Every W-th transition of each old rank, counted from the newest, goes to one of W ranks: the shares are equal to
    within one per old rank, and of the same age.
    """
    parts, ages = [], []
    for number, state in enumerate(ranks):
        held = _read_replay(job, state)
        age = np.arange(state.stored)[::-1]  # 0 is the newest
        mine = (age + number) % job.communicator.size == job.communicator.rank
        parts.append(Transition(*(column[mine] for column in held)))
        ages.append(age[mine])
    order = np.argsort(-np.concatenate(ages), kind="stable")
    return Transition(*(np.concatenate(columns)[order] for columns in zip(*parts, strict=True)))
