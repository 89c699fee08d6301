"""Runs an elastic job: assembles it again for every set of ranks, and restores the newest snapshot."""

from __future__ import annotations

import time

import numpy as np

from hvd_dqn.checkpoint.reshard import rebalance
from hvd_dqn.config import Config
from hvd_dqn.distributed.agreement import on_root
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.elastic.driver import ElasticDriver
from hvd_dqn.elastic.membership import Membership, reject_newcomers, rendezvous
from hvd_dqn.elastic.snapshot import TakeSnapshots
from hvd_dqn.elastic.state import SurvivorState, keep_survivor_state
from hvd_dqn.envs.open_episode import OpenEpisode
from hvd_dqn.errors import UserError
from hvd_dqn.learner.learner import load_state, state_of
from hvd_dqn.replay.base import Refill, reader_of
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.assembly import assemble
from hvd_dqn.training.environments import keeps_episodes, start_environments
from hvd_dqn.training.job import Job
from hvd_dqn.training.resume import restore
from hvd_dqn.training.run import SECONDS_TO_FINISH, Train, close_job, stop_before_time_limit, train_to_exit_code

_HURRIED_SECONDS = 1.0
"""For a checkpoint in progress when a rank is lost: a part of it may never come."""


def run_elastic_job(
    driver: ElasticDriver, config: Config, runtime: Runtime, stop: StopRequest, command: list[str], train: Train
) -> int:
    """Runs the job on whatever ranks there are, and returns the exit code; a collective.

    Raises:
      UserError: on all ranks.
    """
    state, membership = SurvivorState(), Membership()
    while True:
        job, continues = None, False
        try:
            membership = rendezvous(driver.name, runtime.communicator, state, stop)  # COLLECTIVE
            stop_before_time_limit(config, runtime.communicator, stop)  # COLLECTIVE
            job = assemble(
                config,
                runtime,
                stop,
                command,
                state.handle,
                stream=state.stream,
                grace_seconds=driver.silence_seconds,
            )  # COLLECTIVE
            begin(job, membership, state, driver)  # COLLECTIVE
            return train_to_exit_code(job, config, command, train)  # COLLECTIVE
        except Exception as error:
            rejected = job is None and isinstance(error, UserError) and reject_newcomers(membership, state, error)
            continues = rejected or driver.ranks_changed(error)
            if not continues:
                raise
            driver.leave(error)
            keep_survivor_state(job, state)
        finally:
            if job is not None:
                close_job(job, _HURRIED_SECONDS if continues else SECONDS_TO_FINISH)
            state.handle.close(keep=continues)
        driver.rejoin()  # COLLECTIVE


def begin(job: Job, membership: Membership, state: SurvivorState, driver: ElasticDriver) -> None:
    """Restores the assembled job and has it take snapshots; a collective."""
    job.watchdog.start()
    if membership.source is None:
        restore(job)  # COLLECTIVE
    else:
        restore_from_snapshot(job, state, membership)  # COLLECTIVE
    state.members = membership.names
    snapshots = TakeSnapshots(job, state)
    job.hosts_changed = driver.hosts_changed
    job.hooks.append(snapshots)
    job.records.contributions.append(snapshots)


def restore_from_snapshot(job: Job, state: SurvivorState, membership: Membership) -> None:
    """Restores the newest snapshot on all ranks and reshards the transitions that are left; a collective."""
    assert membership.source is not None
    _load_snapshot(job, state, membership.source)  # COLLECTIVE
    replay, records, counters = job.learning.replay, job.records, job.counters
    refill = Refill(replay)
    moved = rebalance(
        reader_of(state.replay if state.replay is not None else replay),
        membership.stored,
        refill,
        rank=job.communicator.rank,
        capacity=job.config.replay.replay_capacity,
        exchange=job.communicator.exchange,
        beat=lambda: job.watchdog.beat("resharding the replay", allow=4.0),
    )  # COLLECTIVE
    refill.finish()
    _wait_until_filled(job, sum(membership.stored))
    on_root(job.communicator, lambda: records.metrics.cut_after(counters.env_steps))  # COLLECTIVE
    records.started = time.monotonic() - max(part["running_for"] for part in membership.parts)
    records.restart_speed(counters)
    _report(job, membership, moved)
    _continue_episodes(job, state)  # COLLECTIVE
    state.replay = None


def _continue_episodes(job: Job, state: SurvivorState) -> None:
    """Continues the survivors' open episodes, each on the rank that its environment belongs to now; a collective."""
    own = {str(env): episode.to_json() for env, episode in state.open_episodes.items()}
    state.open_episodes = {}
    parts = job.communicator.gather_json(own)  # COLLECTIVE
    saved = {int(env): OpenEpisode.from_json(record) for part in parts for env, record in part.items()}
    start_environments(job, saved if keeps_episodes(job) else None)  # COLLECTIVE


def _load_snapshot(job: Job, state: SurvivorState, source: int) -> None:
    """Sends the source's snapshot to all ranks; a collective."""
    own, learner = state.snapshot, job.learning.learner
    sends = job.communicator.rank == source
    shared = job.communicator.gather_json(own.shared if own and sends else None)[source]  # COLLECTIVE
    vectors = {}
    for name, vector in state_of(learner).items():
        part = own.learner[name] if own and sends else np.zeros_like(vector)
        vectors[name] = job.communicator.sum(part)  # COLLECTIVE
    job.load_shared_state(shared)
    load_state(learner, vectors, job.counters.learner_steps)
    job.acting.values.load(learner.online)
    job.acting.finished_episodes = list(own.finished_episodes) if own else []


def _wait_until_filled(job: Job, stored: int) -> None:
    """Delays learning until the replay holds again what learning starts with."""
    counters = job.counters
    ahead = max(0, counters.learning_from_env_step - counters.env_steps)
    missing = max(job.config.env_steps_before_learning - stored, int(stored < job.communicator.size))
    if missing > ahead:
        counters.wait_for_replay(missing)


def _report(job: Job, membership: Membership, moved: int) -> None:
    """Reports the change on rank 0 and in the metrics."""
    counters, now, before = job.counters, membership.names, membership.before
    lost = [name for name in before if name not in now]
    joined = [name for name in now if name not in before]
    survived = [stored for name, stored in zip(now, membership.stored, strict=True) if name in before]
    rolled_back = max(0, max(part["reached"] for part in membership.parts) - counters.env_steps)
    transitions_lost = len(lost) * sum(survived) // max(1, len(survived))
    lines = [
        f"the ranks have changed: {len(now)} now, {len(before)} before",
        *(f"  lost: {name}" for name in lost),
        *(f"  joined: {name}" for name in joined),
        f"  restored the snapshot of env step {counters.env_steps:,}, {rolled_back:,} env steps back",
        f"  replay: {sum(survived):,} transitions kept, {moved:,} of them moved to another rank"
        + (f", about {transitions_lost:,} lost" if transitions_lost else ""),
    ]
    waiting = counters.learning_from_env_step - counters.env_steps
    if waiting > 0:
        lines.append(f"  learning continues after {waiting:,} more env steps, which fill the replay")
    job.records.display.message("\n".join(lines))
    record = {
        "ranks": len(now),
        "left": len(lost),
        "came": len(joined),
        "rolled_back_env_steps": rolled_back,
        "transitions_kept": sum(survived),
        "transitions_moved": moved,
    }
    job.records.write("ranks", counters.env_steps, record)
