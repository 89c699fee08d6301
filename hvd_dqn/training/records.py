"""The periodic records: gathers what all ranks saw, writes and shows it on rank 0."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from hvd_dqn.distributed.agreement import check_same_weights
from hvd_dqn.elastic.snapshot import choose_period
from hvd_dqn.learner.learner import state_of
from hvd_dqn.run.profile import over_ranks, resident_bytes
from hvd_dqn.training.job import Job


def log_training(job: Job) -> None:
    """Writes and shows one line of training metrics, after checking that all ranks hold the same state; a collective.

    Raises:
      JobFault: on all ranks, if weights, target or optimizer state differ.
    """
    check_same_weights(job.communicator, state_of(job.learner).values())  # COLLECTIVE
    speed = job.speed.take(job.counters.env_steps, job.counters.learner_steps)
    own = {
        "episodes": job.finished_episodes,
        "phases": job.profile.take(),
        "resident_bytes": resident_bytes(),
        "env_steps_per_second": speed["env_steps_per_second"],
        "commit_seconds": job.commits.cost_seconds,
    }
    parts = job.communicator.gather_json(own)  # COLLECTIVE
    job.finished_episodes = []
    job.recent.add([episode for part in parts for episode in part["episodes"]])
    counters = job.counters
    record = {
        "learner_steps": counters.learner_steps,
        "skipped_updates": counters.skipped_updates,
        "target_updates": counters.target_updates,
        "episodes": counters.episodes,
        **job.recent.summary(),
        "epsilon": job.exploration.epsilon(counters.env_steps, counters.episodes),
        **job.averages.take(),
        **speed,
        **over_ranks([part["phases"] for part in parts]),
        "resident_mebibytes": max(part["resident_bytes"] for part in parts) / 2**20,
        **choose_period(
            job,
            max(part["commit_seconds"] for part in parts),
            min(part["env_steps_per_second"] for part in parts),
        ),
    }
    job.display.update(write_record(job, "training", record))


def log_evaluation(job: Job, returns: np.ndarray) -> None:
    """Writes and shows one evaluation's mean return."""
    record = {"mean_return": float(returns.mean()), "std_return": float(returns.std()), "episodes": len(returns)}
    write_record(job, "evaluation", record)
    job.display.message(
        f"evaluation at env step {job.counters.env_steps:,}: mean return {record['mean_return']:.2f} "
        f"over {len(returns)} greedy episodes"
    )


def write_record(job: Job, kind: str, record: dict[str, Any]) -> dict[str, Any]:
    """Writes a record with its kind, step and time, and returns it; a full disk costs the line, not the run."""
    whole = {
        "kind": kind,
        "env_steps": job.counters.env_steps,
        "unix_time": time.time(),
        "seconds": time.monotonic() - job.started,
        **record,
    }
    try:
        job.metrics.write(whole)
    except OSError as error:
        job.display.warn(f"metrics could not be written: {error}")
    return whole


def write_profile(job: Job) -> None:
    """Writes this rank's trace where --profile asks for one; a full disk costs the trace, not the run."""
    if not job.config.job.profile:
        return
    path = job.directory.profile / f"rank-{job.communicator.rank:05d}.trace.json"
    try:
        job.profile.write_trace(path, job.communicator.rank)
    except OSError as error:
        print(f"hvd_dqn: rank {job.communicator.rank} could not write its trace: {error}", file=sys.stderr, flush=True)
    job.display.message(f"traces for https://ui.perfetto.dev: {path.parent}")
