"""The numbers of a report, for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvd_dqn.report.charts import phase_times
from hvd_dqn.report.groups import Group, changed
from hvd_dqn.report.reading import WALL_SECONDS, RunData


def numbers(groups: Sequence[Group]) -> dict[str, Any]:
    """Returns what a report shows, JSON-ready: by group and by run."""
    return {
        "groups": [
            {
                "name": group.name,
                "preset": group.preset.name,
                "differs_from_preset": {name: group.settings[name] for name in changed(group.runs[0], group.preset)},
                **{which: group.summary(which) for which in ("final", "best", "last")},
                "phase_microseconds": phase_times(group),
                "runs": [_run(run) for run in group.runs],
            }
            for group in groups
        ]
    }


def _run(run: RunData) -> dict[str, Any]:
    latest, speed = run.latest, run.column("env_steps_per_second")[2]
    return {
        "run": run.place,
        "env": run.config["env"],
        "seed": run.seed,
        "ranks": run.ranks,
        "state": run.state,
        "env_steps": latest["env_steps"] if latest else 0,
        "wall_seconds": latest[WALL_SECONDS] if latest else 0.0,
        "env_steps_per_second": float(np.mean(speed)) if len(speed) else None,
        "final": run.final,
        "best": run.best,
        "last": run.last,
        "checkpoints": {str(step): score for step, score in run.checkpoints.items()},
    }
