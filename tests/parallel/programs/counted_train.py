"""Runs train.py and records, per rank, which collectives training called, and after how many updates of this rank.

    counted_train.py FOLDER ARGUMENTS...

Rank r writes FOLDER/rank<r>.json: [name, updates, numbers in the array] of each call, in order.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from hostile_envs import own_rank

import train
from hvd_dqn.training.job import Job

COLLECTIVES = ("sum", "broadcast", "gather", "exchange")


def main() -> int:
    """Runs on every rank."""
    folder, *arguments = sys.argv[1:]
    calls: list[tuple[str, int, int]] = []
    whole = train.train

    def counted(job: Job) -> bool:
        learner = job.learning.learner

        def count(name: str, collective: Any, values: Any, *others: Any) -> Any:
            calls.append((name, int(learner.step), int(np.size(values))))
            return collective(values, *others)

        for name in COLLECTIVES:
            setattr(job.communicator, name, functools.partial(count, name, getattr(job.communicator, name)))
        try:
            return whole(job)
        finally:
            Path(folder, f"rank{own_rank()}.json").write_text(json.dumps(calls))
            for name in COLLECTIVES:
                delattr(job.communicator, name)

    train.train = counted
    sys.argv = [train.__file__, *arguments]
    try:
        return train.main(arguments)
    finally:
        train.train = whole


if __name__ == "__main__":
    sys.exit(main())
