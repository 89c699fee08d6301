"""Snapshots in memory: every rank takes one at the same steps. No communication is needed."""

from __future__ import annotations

import math
import time
from collections import deque
from statistics import median
from typing import Any

from hvd_dqn.checkpoint.save import settle_or_warn
from hvd_dqn.counters import crossed
from hvd_dqn.elastic.driver import HostsChanged
from hvd_dqn.elastic.state import Snapshot, SurvivorState
from hvd_dqn.learner.learner import state_of
from hvd_dqn.training.job import Iteration, Job

COST = 0.01
"""Share of the training time that snapshots may take."""
_REMEMBERED = 15
_FIRST = 5


class SnapshotSchedule:
    """How many env steps lie between two snapshots, from what one costs."""

    def __init__(self, period: int, first_period: int) -> None:
        """Knows no cost yet.

        Args:
          period: env steps between two snapshots, 0 to choose it by their cost.
          first_period: env steps between two until the cost is known.
        """
        self._chosen_by_cost = period == 0
        self._costs: deque[float] = deque(maxlen=_REMEMBERED)
        self.period = period or first_period

    def add_cost(self, seconds: float) -> None:
        """Takes note of what one snapshot took."""
        self._costs.append(seconds)

    @property
    def cost_seconds(self) -> float:
        """Returns the median of the last snapshots' costs, 0 before the first."""
        return median(self._costs) if self._costs else 0.0

    def choose(self, cost_seconds: float, env_steps_per_second: float) -> None:
        """Chooses the period, if it was not given: the shortest at which snapshots take no more than `COST`.

        Args:
          cost_seconds: of a snapshot on the slowest rank, equal on all.
          env_steps_per_second: the job's speed, equal on all ranks.
        """
        if self._chosen_by_cost:
            self.period = max(1, math.ceil(cost_seconds * env_steps_per_second / COST))


class TakeSnapshots:
    """The hook that takes snapshots and lets new ranks in; it adds the cost of a snapshot to each training record."""

    def __init__(self, job: Job, state: SurvivorState) -> None:
        """Takes several snapshots at once, to learn what one costs.

        Args:
          job: the job, restored.
          state: takes the snapshots.
        """
        self._job, self._state = job, state
        self._schedule = SnapshotSchedule(job.config.runtime.snapshot_period, job.config.job.log_period)
        self._reported = False
        for _ in range(_FIRST):
            self.take()

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether the period has passed, a checkpoint was begun, or the hosts have changed."""
        due = crossed(iteration.env_steps_before, iteration.env_steps, self._schedule.period)
        return due or job.checkpoints.begun_at == iteration.env_steps or iteration.signals.hosts_changed > 0

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Takes a snapshot.

        Raises:
          HostsChanged: on all ranks, if any was notified; not at the run's end, where new ranks would find no work.
        """
        self.take()
        if iteration.signals.hosts_changed > 0 and not iteration.last:
            settle_or_warn(job.checkpoints, job.records.display.warn)  # COLLECTIVE
            raise HostsChanged
        return True

    def take(self) -> None:
        """Copies what all ranks share, for the surviving ranks to restore."""
        since = time.perf_counter()
        self._state.snapshot = Snapshot(
            self._state.generation,
            self._job.counters.env_steps,
            state_of(self._job.learning.learner),
            self._job.shared_state(),
            list(self._job.acting.finished_episodes),
        )
        self._schedule.add_cost(time.perf_counter() - since)

    def local(self) -> dict[str, Any]:
        """Returns what a snapshot costs on this rank."""
        return {"snapshot_seconds": self._schedule.cost_seconds}

    def summarize(self, parts: list[dict[str, Any]]) -> dict[str, float]:
        """Chooses the next period, and reports it once the speed of learning is known."""
        cost_seconds = max(part["snapshot_seconds"] for part in parts)
        env_steps_per_second = min(part["env_steps_per_second"] for part in parts)
        self._schedule.choose(cost_seconds, env_steps_per_second)
        period = self._schedule.period
        if not self._reported and self._job.counters.learner_steps > 0:
            self._reported = True
            self._job.records.display.message(
                f"a snapshot takes {1e3 * cost_seconds:.3f} ms; one every {period:,} env steps: "
                f"{cost_seconds * env_steps_per_second / period:.2%} of the time"
            )
        return {"snapshot_milliseconds": 1e3 * cost_seconds, "snapshot_period": period}
