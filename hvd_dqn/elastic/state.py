"""What a rank keeps while its job is assembled anew for other ranks, and how often it does so."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from hvd_dqn.run.directory import RunDirectory
from hvd_dqn.transition import Transition

COST = 0.01
"""Share of the training time that commits may take."""
_REMEMBERED = 15


@dataclass(frozen=True)
class Commit:
    """What the ranks come back to: a checkpoint in memory, without the replay, which the ranks that stay still have."""

    generation: int
    """How often the ranks had met anew before it."""
    env_steps: int
    learner: dict[str, np.ndarray]
    shared: dict[str, Any]
    """What a checkpoint holds for all ranks, as JSON-ready values."""
    finished_episodes: list[tuple[int, float, int]]
    """This rank's own since the last log line."""


@dataclass
class Kept:
    """What outlives the job of one set of ranks."""

    generation: int = 0
    """How often the ranks have met anew; random streams are addressed by it, so that no future repeats a past."""
    commit: Commit | None = None
    replay: Transition | None = None
    """This rank's transitions [N], oldest first, while no job holds them."""
    directory: RunDirectory | None = None
    members: list[str] = field(default_factory=list)
    """Who took part, in the order of ranks."""
    reached: int = 0
    """Env steps when the ranks changed."""

    @property
    def stream(self) -> tuple[int, ...]:
        """Returns what is added to the address of a random stream: nothing before the ranks have met anew."""
        return (self.generation,) if self.generation else ()


class CommitSchedule:
    """When commits are due, from what they cost."""

    def __init__(self, period: int, first_period: int) -> None:
        """Knows no cost yet.

        Args:
          period: env steps between two commits, 0 to choose it by their cost.
          first_period: env steps between two until the cost is known.
        """
        self._chosen_by_cost = period == 0
        self._costs: deque[float] = deque(maxlen=_REMEMBERED)
        self.period = period or first_period
        self.said = False
        """Whether the user has been told."""

    def add_cost(self, seconds: float) -> None:
        """Takes note of what one commit took."""
        self._costs.append(seconds)

    @property
    def cost_seconds(self) -> float:
        """Returns the median of the last commits' costs, 0 before the first."""
        return median(self._costs) if self._costs else 0.0

    def choose(self, cost_seconds: float, env_steps_per_second: float) -> None:
        """Chooses the period, if it was not given: the shortest at which commits take no more than `COST`.

        Args:
          cost_seconds: of a commit on the slowest rank, equal on all.
          env_steps_per_second: the job's speed, equal on all ranks.
        """
        if self._chosen_by_cost:
            self.period = max(1, math.ceil(cost_seconds * env_steps_per_second / COST))
