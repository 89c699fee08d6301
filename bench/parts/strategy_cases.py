"""What is measured of the strategies by which ranks learn together, and the file of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from parts.apart import Link
from parts.strategy_model import Work

SPEEDS = ("env_steps_per_second", "learner_steps_per_second")


class Strategy(NamedTuple):
    """One way to learn together."""

    kind: str
    """Of --strategy."""
    period: int = 1
    """H of local."""
    servers: int = 0
    """Ranks that serve, in addition to the workers."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Returns what asks train.py for it."""
        period = ("--sync-period", str(self.period)) if self.kind == "local" else ()
        return ("--strategy", self.kind, *period)


STRATEGIES = {
    "allreduce": Strategy("allreduce"),
    "local-16": Strategy("local", period=16),
    "local-128": Strategy("local", period=128),
    "ps-sync": Strategy("ps-sync", servers=1),
    "ps-async": Strategy("ps-async", servers=1),
}


class Condition(NamedTuple):
    """Where the workers run."""

    apart: bool = False
    """Whether each rank has a host of its own."""
    link: Link | None = None
    slow_share: float = 1.0
    """Part of its time for which the last worker may run."""


CONDITIONS = {
    "here": Condition(),
    "here, one worker at a quarter": Condition(slow_share=0.25),
    "1 ms": Condition(apart=True, link=Link(1.0, 100.0)),
    "10 ms": Condition(apart=True, link=Link(10.0, 100.0)),
}

Key = tuple[str, int, str, int, int]
"""Strategy, workers, condition, env steps, seed."""


def read(path: Path) -> tuple[dict[Key, dict[str, Any]], dict[str, Work]]:
    """Returns the runs that were measured, and the parts of a worker by setting."""
    runs, works = {}, {}
    for line in path.read_text().splitlines() if path.exists() else []:
        record = json.loads(line)
        if record["kind"] == "parts":
            works[record["setting"]] = Work(**record["work"])
        else:
            names = ("strategy", "workers", "condition", "env_steps", "seed")
            runs[tuple(record[name] for name in names)] = record
    return runs, works


def append(path: Path, record: dict[str, Any]) -> None:
    """Adds a line."""
    path.parent.mkdir(exist_ok=True, parents=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
