"""One rank's view of the job: every object that the loop works with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hvd_dqn.checkpoint.lease import Claim
from hvd_dqn.checkpoint.segments import SegmentWriter
from hvd_dqn.checkpoint.storage import ObjectPath
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.checkpoint.writing import Writing
from hvd_dqn.config import Config
from hvd_dqn.counters import Counters
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.watchdog import Watchdog
from hvd_dqn.elastic.membership import Members
from hvd_dqn.elastic.state import CommitSchedule, Kept
from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.greedy import GreedyEvaluation
from hvd_dqn.learner.action_values import ActionValues
from hvd_dqn.learner.learner import Learner
from hvd_dqn.learner.policy import Exploration
from hvd_dqn.replay.base import Replay
from hvd_dqn.run.averages import LearnerAverages, RecentEpisodes, Speed
from hvd_dqn.run.directory import RunDirectory
from hvd_dqn.run.metrics import MetricsWriter
from hvd_dqn.run.profile import IterationProfile
from hvd_dqn.run.progress import Display
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.overlap import Worker


class Flags(NamedTuple):
    """What one rank knows and all must learn, carried by each iteration's exchange; the ranks' values are summed."""

    stop: float = 0.0  # this rank was asked to stop
    fault: float = 0.0  # this rank cannot go on
    episodes: float = 0.0  # episodes that ended on this rank in this iteration
    unsaved: float = 0.0  # this rank could not write its part of the checkpoint under way
    changed: float = 0.0  # this rank was told of other hosts for the job


@dataclass
class Job:
    """Built by `assemble`; `directory`, `store` and `claim` are used on rank 0 alone."""

    config: Config
    communicator: Communicator
    members: Members
    kept: Kept
    commits: CommitSchedule
    stop: StopRequest
    watchdog: Watchdog
    directory: RunDirectory
    store: CheckpointStore[Path] | CheckpointStore[ObjectPath]
    claim: Claim
    metrics: MetricsWriter
    display: Display
    collector: Collector
    exploration: Exploration
    policy_rng: np.random.Generator
    replay_rng: np.random.Generator
    acting_values: ActionValues
    replay: Replay
    segments: SegmentWriter
    learner: Learner
    chosen_learner: str
    batch_size_per_rank: int
    worker: Worker
    profile: IterationProfile
    evaluation: GreedyEvaluation
    evaluated_values: ActionValues
    counters: Counters = field(default_factory=Counters)
    recent: RecentEpisodes = field(default_factory=RecentEpisodes)
    averages: LearnerAverages = field(default_factory=LearnerAverages)
    speed: Speed = field(default_factory=lambda: Speed(0, 0))
    finished_episodes: list[tuple[int, float, int]] = field(default_factory=list)
    """(env step, return, length) of episodes that ended on this rank since the last log line."""
    best_score: float | None = None
    writing: Writing | None = None
    """The checkpoint under way."""
    started: float = field(default_factory=time.monotonic)

    @property
    def saves_elsewhere(self) -> bool:
        """Returns whether the checkpoints, and all else that a resume needs, lie outside the run directory."""
        return self.store.folder != self.directory.checkpoints

    @property
    def generators(self) -> dict[str, np.random.Generator]:
        """Returns this rank's random generators by name; environments are seeded anew at every checkpoint."""
        return {"policy": self.policy_rng, "replay": self.replay_rng}

    def shared_state(self) -> dict[str, Any]:
        """Returns what all ranks share beside the learner, as JSON-ready copies."""
        return {
            "counters": self.counters.as_dict(),
            "recent_episodes": self.recent.state(),
            "averages": self.averages.state(),
            "best_score": self.best_score,
        }

    def take_shared_state(self, state: dict[str, Any]) -> None:
        """Puts back what `shared_state` returned.

        Raises:
          KeyError, TypeError, ValueError, AttributeError, OverflowError: if it is something else.
        """
        self.counters = Counters.from_dict(state["counters"])
        self.recent.load(state["recent_episodes"])
        self.averages.load(state["averages"])
        self.best_score = None if state["best_score"] is None else float(state["best_score"])
        self.learner.step = self.counters.learner_steps
