"""What a process keeps while its job is assembled again for another set of ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hvd_dqn.envs.open_episode import OpenEpisode
from hvd_dqn.replay.base import Replay
from hvd_dqn.training.environments import keeps_episodes, own_environments
from hvd_dqn.training.job import Job
from hvd_dqn.training.run_directory import RunDirectoryHandle


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint in memory, without the replay, which the surviving ranks still hold."""

    generation: int
    """How often the ranks had changed before it."""
    env_steps: int
    learner: dict[str, np.ndarray]
    shared: dict[str, Any]
    """What a checkpoint holds for all ranks, as JSON-ready values."""
    finished_episodes: list[tuple[int, float, int]]
    """This rank's own since the last log line."""


@dataclass
class SurvivorState:
    """What outlives the job of one set of ranks."""

    generation: int = 0
    """How often the ranks have changed; part of the address of random streams, so that no future repeats a past."""
    snapshot: Snapshot | None = None
    replay: Replay | None = None
    """This rank's, while no job holds it."""
    open_episodes: dict[int, OpenEpisode] = field(default_factory=dict)
    """By global environment, of those that this rank stepped, while no job holds them."""
    handle: RunDirectoryHandle = field(default_factory=RunDirectoryHandle)
    members: list[str] = field(default_factory=list)
    """The ranks' names, in their order."""
    reached: int = 0
    """Env steps when the ranks changed."""

    @property
    def stream(self) -> tuple[int, ...]:
        """Returns what is added to the address of a random stream: nothing before the ranks have changed."""
        return (self.generation,) if self.generation else ()


def keep_survivor_state(job: Job | None, state: SurvivorState) -> None:
    """Keeps this rank's replay and open episodes from a job that has lost a rank or whose hosts change.

    The snapshot is kept already. The episodes continue from here, not from the snapshot's step: the replay has all of
    their transitions.
    """
    state.generation += 1
    if job is not None and state.snapshot is not None and state.replay is None:
        state.reached = job.counters.env_steps
        state.replay = job.learning.replay
        if keeps_episodes(job):
            state.open_episodes = dict(zip(own_environments(job), job.acting.collector.state().episodes, strict=False))
