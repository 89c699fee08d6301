"""What training records say of the priorities of prioritised replay."""

from __future__ import annotations

from typing import Any

from hvd_dqn.replay.prioritized import PrioritizedReplay


class Priorities:
    """Adds the mean and the largest priority over all ranks to each training record."""

    def __init__(self, replay: PrioritizedReplay) -> None:
        """Takes this rank's replay."""
        self._replay = replay

    def local(self) -> dict[str, Any]:
        """Returns the sum of this rank's priorities, how many there are, and their bound."""
        replay = self._replay
        return {"priorities": [replay.sum_of_priorities, len(replay), replay.bound_of_priorities]}

    def summarize(self, parts: list[dict[str, Any]]) -> dict[str, float]:
        """Returns both over all ranks."""
        sums, counts, bounds = zip(*(part["priorities"] for part in parts), strict=True)
        return {"mean_priority": sum(sums) / max(1, sum(counts)), "largest_priority": max(bounds)}
