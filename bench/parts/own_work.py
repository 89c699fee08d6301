"""What ranks do between two sums, from traces of jobs of one rank, and how long they take together: pure functions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WARM_ITERATIONS = 10
"""Left out at the start."""
ITERATIONS_PER_LINE = 25
"""Averaged before the median is taken, as a log line of a run does."""


def own_work(trace: Path, updates: int) -> np.ndarray:
    """Returns float64 [iterations, K], the seconds from each sum to the next of a job that has nobody to wait for.

    Args:
      trace: written by --profile.
      updates: K per iteration.
    """
    pauses: list[float] = []
    summed = None
    for event in sorted(json.loads(trace.read_text())["traceEvents"], key=lambda event: event.get("ts", 0.0)):
        end = event.get("ts", 0.0) + event.get("dur", 0.0)
        if event["name"] == "gradient":
            begun = end if summed is None else summed  # before the first sum is what nothing tells the length of
            pauses.append(end - begun)
        elif event["name"] == "allreduce" and pauses:
            summed = end
    whole = len(pauses) // updates
    return 1e-6 * np.reshape(pauses[: whole * updates], (whole, updates))[WARM_ITERATIONS:]


def iteration_seconds(ranks: list[np.ndarray], exchange: float, crowded: bool) -> float:
    """Returns the seconds of an iteration of a job whose every sum waits for the last rank.

    Args:
      ranks: the own work of each.
      exchange: seconds of a sum once all have come.
      crowded: whether ranks share cores. They then take turns at every sum, where in the traces a turn was as long as
        several pauses: what one rank's trace shows is too long as often as another's is too short.
    """
    shortest = min(len(own) for own in ranks)
    work = np.stack([own[:shortest] for own in ranks])  # [W, iterations, K]
    together = (work.mean(axis=0) if crowded else work.max(axis=0)).sum(axis=1)  # [iterations]
    lines = max(1, shortest // ITERATIONS_PER_LINE)
    per_line = [line.mean() for line in np.array_split(together, lines)]
    return float(np.median(per_line)) + work.shape[2] * exchange
