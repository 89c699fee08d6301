"""Runs train.py with a reward that is not finite in the batches of some learner steps on one rank.

    poisoned_train.py RANK STEPS ARGUMENTS...

STEPS are numbers of learner steps since this process began, such as 7,100,101: the gradient that the rank computes from
such a batch is not finite, whatever computes it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
from hostile_envs import own_rank

from hvd_dqn.replay.base import Sample
from hvd_dqn.replay.ring import RingReplay


def main() -> None:
    """Runs on every rank."""
    rank, steps, *arguments = sys.argv[1:]
    poisoned = {int(step) for step in steps.split(",")} if int(rank) == own_rank() else set()
    sample, drawn = RingReplay.sample, 0

    def poisoned_sample(self: RingReplay, updates: int, batch_size: int) -> Sample:
        nonlocal drawn
        batches = sample(self, updates, batch_size)
        for k in range(updates):
            drawn += 1
            if drawn in poisoned:
                batches.transitions.r_t[k, 0] = np.inf
        return batches

    RingReplay.sample = poisoned_sample  # type: ignore[method-assign]
    script = str(Path(__file__).resolve().parents[3] / "train.py")
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        RingReplay.sample = sample  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
