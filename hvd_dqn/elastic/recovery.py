"""What happens when the ranks of an elastic job meet anew: what stays, who comes back to which commit, who gives what.

Nothing here is done where ranks cannot come and go.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.checkpoint.reshard import deal_out
from hvd_dqn.distributed.agreement import on_root
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.elastic.state import Kept
from hvd_dqn.errors import EXIT_USER_ERROR, UserError
from hvd_dqn.learner.learner import load_state, state_of
from hvd_dqn.run.averages import Speed
from hvd_dqn.run.directory import RunDirectory
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.job import Job
from hvd_dqn.training.records import write_record


@dataclass(frozen=True)
class Meeting:
    """What the ranks told each other when they met."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    """Of each rank, in their order; none where ranks never meet anew."""

    @property
    def names(self) -> list[str]:
        """Returns the ranks' names."""
        return [part["name"] for part in self.parts]

    @property
    def source(self) -> int | None:
        """Returns the rank whose commit counts: the first of those with the newest; None where there is no commit."""
        commits = {rank: part["commit"] for rank, part in enumerate(self.parts) if part["commit"]}
        return max(commits, key=lambda rank: (commits[rank], -rank)) if commits else None


def meet(runtime: Runtime, kept: Kept, stop: StopRequest) -> Meeting:
    """Tells all ranks what each has kept; a collective.

    Args:
      runtime: this rank, up.
      kept: what it has kept; run directory and generation become the same on all ranks.
      stop: its clock becomes that of the rank that has run for longest.
    """
    if not runtime.members.elastic:
        return Meeting()
    own = {
        "name": runtime.members.name,
        "generation": kept.generation,
        "commit": [kept.commit.generation, kept.commit.env_steps] if kept.commit else None,
        "stored": len(kept.replay.a_tm1) if kept.replay else 0,
        "directory": str(kept.directory.path) if kept.directory else None,
        "before": kept.members,
        "reached": kept.reached,
        "running_for": time.monotonic() - stop.started,
    }
    meeting = Meeting(runtime.communicator.gather_json(own))  # COLLECTIVE
    stop.started = time.monotonic() - max(part["running_for"] for part in meeting.parts)
    kept.generation = max(part["generation"] for part in meeting.parts)
    directories = [part["directory"] for part in meeting.parts if part["directory"]]
    if directories:
        kept.directory = RunDirectory(Path(directories[0]))
    return meeting


def rescue(job: Job | None, kept: Kept) -> None:
    """Takes what is this rank's own out of a job that has lost a rank, or that is to meet others."""
    kept.generation += 1
    if job is not None and kept.commit is not None and kept.replay is None:
        kept.reached = job.counters.env_steps
        kept.replay = job.replay.contents()


def dismiss(meeting: Meeting, kept: Kept, error: UserError) -> bool:
    """Lets new ranks leave that make the job impossible (too many, another program), so that the others can go on.

    Args:
      meeting: the ranks that could not assemble a job.
      kept: what this rank has kept; a new one does not come back from here.
      error: why they could not, told to all of them.

    Returns:
      Whether there were any.
    """
    if meeting.source is None or all(part["commit"] for part in meeting.parts):
        return False
    if kept.commit is None:
        print(f"train.py: {error}; this new rank leaves", file=sys.stderr, flush=True)
        os._exit(EXIT_USER_ERROR)
    return True


def take_over(job: Job, meeting: Meeting) -> None:
    """Brings all ranks to the last commit and deals the transitions out that are left; a collective."""
    kept, source = job.kept, meeting.source
    assert source is not None
    _load_commit(job, source)  # COLLECTIVE
    held = kept.replay if kept.replay is not None else job.replay.empty()
    counts = [part["stored"] for part in meeting.parts]
    dealt, moved = deal_out(
        held,
        counts,
        rank=job.communicator.rank,
        capacity=job.config.replay.replay_capacity,
        exchange=job.members.exchange,
        beat=lambda: job.watchdog.beat("dealing out the replay", allow=4.0),
    )  # COLLECTIVE
    job.replay.restore(dealt, len(dealt.a_tm1))
    _wait_until_filled(job, sum(counts))
    on_root(job.communicator, lambda: job.metrics.cut_after(job.counters.env_steps))  # COLLECTIVE
    job.started = time.monotonic() - max(part["running_for"] for part in meeting.parts)
    job.speed = Speed(job.counters.env_steps, job.counters.learner_steps)
    _tell(job, meeting, moved)
    kept.replay = None


def _load_commit(job: Job, source: int) -> None:
    """Gives the source's commit to all ranks; a collective."""
    own = job.kept.commit
    sends = job.communicator.rank == source
    shared = job.communicator.gather_json(own.shared if own and sends else None)[source]  # COLLECTIVE
    learner = {}
    for name, vector in state_of(job.learner).items():
        part = own.learner[name] if own and sends else np.zeros_like(vector)
        learner[name] = job.communicator.sum(part)  # COLLECTIVE
    job.take_shared_state(shared)
    load_state(job.learner, learner, job.counters.learner_steps)
    job.acting_values.load(job.learner.online)
    job.finished_episodes = list(own.finished_episodes) if own else []


def _wait_until_filled(job: Job, stored: int) -> None:
    """Puts learning off until the replay holds again what learning starts with."""
    counters = job.counters
    ahead = max(0, counters.learning_from_env_step - counters.env_steps)
    missing = max(job.config.replay.learning_starts - stored, int(stored < job.communicator.size))
    if missing > ahead or job.config.learner.scaling != "strong":  # there train_period has changed: count from here
        counters.wait_for_replay(max(missing, ahead))


def _tell(job: Job, meeting: Meeting, moved: int) -> None:
    """Says on rank 0, and in the metrics, what was done."""
    parts, counters = meeting.parts, job.counters
    now = meeting.names
    before = max((part["before"] for part in parts), key=len)
    left, came = [name for name in before if name not in now], [name for name in now if name not in before]
    stayed = [part["stored"] for part in parts if part["name"] in before]
    rolled_back = max(0, max(part["reached"] for part in parts) - counters.env_steps)
    lost = len(left) * sum(stayed) // max(1, len(stayed))
    lines = [
        f"the ranks have changed: {len(now)} now, {len(before)} before",
        *(f"  left: {name}" for name in left),
        *(f"  came: {name}" for name in came),
        f"  weights and counters are those of env step {counters.env_steps:,}, {rolled_back:,} env steps back",
        f"  replay: {sum(stayed):,} transitions kept, {moved:,} of them moved to another rank"
        + (f", about {lost:,} lost" if lost else ""),
    ]
    waiting = counters.learning_from_env_step - counters.env_steps
    if waiting > 0:
        lines.append(f"  learning goes on after {waiting:,} more env steps, which fill the replay")
    job.display.message("\n".join(lines))
    record = {
        "ranks": len(now),
        "left": len(left),
        "came": len(came),
        "rolled_back_env_steps": rolled_back,
        "transitions_kept": sum(stayed),
        "transitions_moved": moved,
    }
    write_record(job, "ranks", record)
