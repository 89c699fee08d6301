"""Restores a job from its newest good checkpoint, or starts it."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvd_dqn.checkpoint.files import read_bytes
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.restore import restore_ranks
from hvd_dqn.config import RESUME_AUTO
from hvd_dqn.distributed.agreement import on_root
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.files import METRICS_BYTES
from hvd_dqn.learner.learner import Learner, load_state
from hvd_dqn.training.environments import keeps_episodes, own_environments, start_environments
from hvd_dqn.training.job import Job


def restore(job: Job) -> None:
    """Loads the newest good checkpoint: rank 0's state on all ranks, and each rank's own; a collective.

    Without --resume, and with --resume auto where there is no checkpoint, it only broadcasts rank 0's initial state.

    Raises:
      UserError: on all ranks, if there is no usable checkpoint or it does not fit the configuration.
    """
    if not (job.config.job.resume and _restore_newest(job)):  # COLLECTIVE
        job.counters.change_train_period(job.config.learner.train_period)
        job.counters.wait_for_replay(job.config.env_steps_before_learning)
        job.records.restart_speed(job.counters)
        start_environments(job)  # COLLECTIVE
    broadcast_learner(job.communicator, job.learning.learner)  # COLLECTIVE
    job.acting.values.load(job.learning.learner.online)


def _restore_newest(job: Job) -> bool:
    """Restores the newest checkpoint that turns out to be good as all ranks read it; a collective.

    Returns:
      False if there is no checkpoint yet.
    """
    damaged: dict[str, str] = {}
    while True:
        load = (lambda: _load_newest(job, damaged)) if job.communicator.rank == 0 else lambda: None
        look = job.checkpoints.with_keepalive("reading the checkpoint", load)  # COLLECTIVE
        state = on_root(job.communicator, look)  # COLLECTIVE
        if state is None:
            return False
        _load_shared_state(job, state)
        ranks = [RankState.from_json(record) for record in state["ranks"]]
        found = _restore_ranks(job, ranks, whole=state["lost"] == 0)  # COLLECTIVE
        if not found:
            break
        damaged.update(found)
    accept = (lambda: _accept(job, state["passed_over"])) if job.communicator.rank == 0 else lambda: None
    on_root(job.communicator, job.checkpoints.with_keepalive("reading the metrics", accept))  # COLLECTIVE
    _continue_episodes(job, ranks)  # COLLECTIVE
    return True


def broadcast_learner(communicator: Communicator, learner: Learner) -> None:
    """Gives rank 0's weights, target and optimizer state to all ranks; a collective."""
    online, target, *slots = (communicator.broadcast(v) for v in (learner.online, learner.target, *learner.slots))
    learner.load(online, target, slots)


def _load_newest(job: Job, damaged: dict[str, str]) -> dict[str, Any] | None:
    """Loads the newest good checkpoint into rank 0's learner and returns its state; None where there is none yet.

    Args:
      job: the job.
      damaged: segments that are known to be, as a message by file.
    """
    store, metrics, display = job.checkpoints.store, job.records.metrics, job.records.display
    if store.empty:
        if job.config.job.resume != RESUME_AUTO:
            display.warn(f"{job.directory.path} has no checkpoint yet: the run starts from the beginning")
        metrics.cut_after(-1)
        return None
    checkpoint, passed_over = store.newest_good(job.config.job.allow_missing_replay, damaged)
    try:
        load_state(job.learning.learner, checkpoint.learner, 0)
    except ValueError as error:
        raise UserError(f"{job.directory.path} was trained with another configuration: {error}") from None
    ranks = [rank.to_json() for rank in checkpoint.ranks]
    return {**checkpoint.state, "ranks": ranks, "lost": checkpoint.lost, "passed_over": passed_over}


def _accept(job: Job, passed_over: list[str]) -> None:
    """Reports the checkpoint that is restored, and cuts the metrics after it; called on rank 0 alone."""
    metrics, display, env_steps = job.records.metrics, job.records.display, job.counters.env_steps
    for line in passed_over:
        display.warn(line)
    saved = _saved_metrics(job)
    if saved is not None:
        metrics.cut_after(env_steps, saved)
    _check_work_left(job, env_steps)
    metrics.cut_after(env_steps)
    display.message(f"resumed from the checkpoint at env step {env_steps:,}")


def _check_work_left(job: Job, env_steps: int) -> None:
    """Refuses to resume a run that has done all of its env steps and its final evaluation."""
    total = job.config.job.total_env_steps
    evaluated = env_steps >= total + job.config.environment.num_envs or job.records.metrics.holds(
        "final_evaluation", env_steps
    )
    if env_steps >= total and evaluated and job.config.job.resume != RESUME_AUTO:
        raise UserError(
            f"the run has done {env_steps:,} of {total:,} env steps already: raise --total-env-steps to continue"
        )


def _saved_metrics(job: Job) -> bytes | None:
    """Returns the metrics saved with checkpoints outside the run directory: the run may have continued elsewhere."""
    if job.checkpoints.metrics is None:
        return None
    path = job.checkpoints.store.folder / job.checkpoints.metrics.name
    try:
        return read_bytes(path, METRICS_BYTES)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        raise UserError(f"{path} cannot be continued: {error}: move it away") from None


def _load_shared_state(job: Job, state: dict[str, Any]) -> None:
    try:
        job.load_shared_state(state)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{job.directory.path} holds a state that this program cannot use ({repr(error)[:300]}): remove the "
            "checkpoint to continue from the one before"
        ) from None


def _restore_ranks(job: Job, ranks: list[RankState], whole: bool) -> dict[str, str]:
    """Gives each rank its own state back, and reports where the replay had to be resharded; a collective.

    Returns:
      The damaged segments, as a message by file; nothing is restored then.
    """
    restored = restore_ranks(
        job.checkpoints, ranks, whole, replay=job.learning.replay, generators=job.generators
    )  # COLLECTIVE
    job.acting.finished_episodes = restored.finished_episodes
    if restored.damaged or not restored.resharded:
        return restored.damaged
    if min(restored.stored) == 0:
        job.counters.wait_for_replay(job.config.env_steps_before_learning)
    job.records.display.message(
        f"the replay of {sum(state.stored for state in ranks):,} transitions on {len(ranks)} rank(s) was resharded: "
        f"{sum(restored.stored):,} on {len(restored.stored)}"
    )
    return {}


def _continue_episodes(job: Job, ranks: list[RankState]) -> None:
    """Gives each environment its open episode back, whichever rank it was on; a collective.

    Raises:
      UserError: on all ranks, if an environment is not deterministic.
    """
    states = [rank.open_episodes for rank in ranks if rank.open_episodes is not None]
    if len(states) < len(ranks) or not keeps_episodes(job):
        start_environments(job)  # COLLECTIVE
        return
    saved = dict(enumerate(episode for state in states for episode in state.episodes))
    first_envs = np.cumsum([0] + [len(state.episodes) for state in states])
    rank, own = job.communicator.rank, own_environments(job)
    same_share = len(ranks) == job.communicator.size and own == range(*first_envs[rank : rank + 2].tolist())
    start_environments(job, saved, states[rank].generator if same_share else None)  # COLLECTIVE
