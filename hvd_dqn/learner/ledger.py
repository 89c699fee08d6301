"""What the coordinator of asynchronous workers counts: their progress, their clocks, and when all must synchronise.

Each worker's clock is the number of updates that it has made. Under stale synchronous parallel (Ho et al. 2013,
section 3) no clock may be more than `max_staleness` ahead of the slowest living worker's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hvd_dqn.counters import Counters, crossed


@dataclass(frozen=True)
class Rules:
    """Of an asynchronous job; all amounts are global."""

    total_env_steps: int
    periods: tuple[int, ...]
    """Env steps between two synchronisations, for each reason that there is for one; 0 for never."""
    global_batch_size: int
    """Rows that make up a learner step."""
    target_update_period: int
    """Learner steps between two copies of the online to the target parameters."""
    max_staleness: int = -1
    """Updates that a worker may be ahead of the slowest one; -1 for any number."""
    inverse_rate: bool = False
    """Whether the learning rate of a gradient is divided by its staleness (Zhang et al. 2016, equation 6)."""


@dataclass
class Ledger:
    """Counts what the workers report."""

    rules: Rules
    living: set[int]
    """The workers that are not lost."""
    counters: Counters = field(default_factory=Counters)
    """The job's. Learner steps are the applied rows over the global batch."""
    announced: int = 0
    """Number of the latest synchronisation that is due, or was made."""
    made: int = 0
    """Number of the latest synchronisation that was made."""
    clocks: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begins where the counters stand."""
        self.rows = self.counters.learner_steps * self.rules.global_batch_size
        """Of the batches whose gradients were applied."""
        self._synchronised_at = self.counters.env_steps
        """When the workers last did."""

    @property
    def due(self) -> bool:
        """Returns whether the workers are to synchronise."""
        return self.announced > self.made

    def report(self, env_steps: int, skipped: int, wants_others: bool) -> None:
        """Takes a worker's progress since its last report.

        Args:
          env_steps: its env steps.
          skipped: its gradients that were not finite.
          wants_others: whether it has anything that all workers must know: a signal or a fault.
        """
        counters = self.counters
        counters.env_steps += env_steps
        counters.skipped_updates += skipped
        crosses = any(crossed(self._synchronised_at, counters.env_steps, period) for period in self.rules.periods)
        if wants_others or crosses or counters.env_steps >= self.rules.total_env_steps:
            self.announce()

    def announce(self) -> None:
        """Has all workers synchronise."""
        self.announced = self.made + 1

    def synchronise(self) -> None:
        """Notes that all living workers have synchronised."""
        self.made, self._synchronised_at = self.announced, self.counters.env_steps

    def permits(self, worker: int) -> bool:
        """Returns whether a worker may make its next update."""
        if self.rules.max_staleness < 0:
            return True
        slowest = min(self.clocks.get(other, 0) for other in self.living)
        return self.clocks.get(worker, 0) + 1 - slowest <= self.rules.max_staleness

    def applied(self, worker: int, rows: int) -> bool:
        """Counts an update of a worker; returns whether the target parameters are to follow the online ones."""
        counters, before = self.counters, self.counters.learner_steps
        self.clocks[worker] = self.clocks.get(worker, 0) + 1
        self.rows += rows
        counters.learner_steps = self.rows // self.rules.global_batch_size
        follows = crossed(before, counters.learner_steps, self.rules.target_update_period)
        counters.target_updates += follows
        return follows

    def lose(self, worker: int) -> None:
        """Continues without a worker."""
        self.living.discard(worker)
        self.announce()


@dataclass
class Staleness:
    """The staleness of the gradients that were applied: the updates since their worker received the parameters."""

    histogram: dict[int, int] = field(default_factory=dict)

    def note(self, staleness: int) -> None:
        """Counts a gradient."""
        self.histogram[staleness] = self.histogram.get(staleness, 0) + 1

    def summary(self) -> tuple[int, int, int]:
        """Returns how many gradients there were, the sum of their staleness, and the largest."""
        total = sum(staleness * count for staleness, count in self.histogram.items())
        return sum(self.histogram.values()), total, max(self.histogram, default=0)
