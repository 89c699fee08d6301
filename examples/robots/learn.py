#!/usr/bin/env python
"""Trains robots seed by seed, and prints and draws their training returns next to published ones.

    python examples/robots/learn.py --tasks reacher --seeds 0 1 2             Gymnasium's Reacher
    python examples/robots/learn.py --tasks walker-walk --seeds 0 1 2         extra [robots]
    python examples/robots/learn.py --plot examples/robots                    the pictures

Each finished run becomes one line of examples/robots/results.jsonl. A run that was interrupted resumes from its last
checkpoint in .bench/learned, and finished runs are not repeated. `training` is the mean return of the last 100 training
episodes, exploration included: of 1,000 steps each, so it lags 50,000 env steps behind.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "bench"))

from learned import Task, main  # noqa: E402 bench is no package

PUBLISHED = "DecQN, mean of 7 seeds"
"""Training returns of DecQN with two bins and two networks, in the authors' line of work; see README.md."""


def _suite(task: str, reach: float, published: dict[int, float] | None = None) -> Task:
    """Returns a task of the Control Suite: the training return to reach, and published ones by env steps."""
    words = ("--preset", "decqn", "--env", f"./examples/robots/tasks.py:{task}-v0")
    return Task(task, words, "training", reach, PUBLISHED, tuple((published or {}).items()))


TASKS = {
    "reacher": Task("Reacher-v5", ("--preset", "robot-reacher"), "last"),
    "halfcheetah": Task("HalfCheetah-v5", ("--preset", "decqn"), "training"),
    "walker-walk": _suite("walker-walk", 758, {100_000: 152, 200_000: 342, 300_000: 528, 500_000: 758}),
    "cheetah-run": _suite("cheetah-run", 221, {100_000: 82, 200_000: 133, 300_000: 158, 500_000: 221}),
    "reacher-easy": _suite("reacher-easy", 333, {100_000: 102, 200_000: 165, 300_000: 250, 500_000: 333}),
    "cartpole-swingup": _suite("cartpole-swingup", 800),
    "finger-spin": _suite("finger-spin", 800),
}

if __name__ == "__main__":
    main(TASKS, HERE / "results.jsonl", __doc__)
