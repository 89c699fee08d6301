"""Runs train.py with a learner whose updates take a given time.

slow_learner.py SECONDS ARGUMENTS...

SECONDS of an update; or one number for each rank, such as 0.1,0.5.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

import numpy as np
from hostile_envs import own_rank

from hvd_dqn.learner.learner import Report
from hvd_dqn.learner.tensorflow import TensorFlowLearner
from hvd_dqn.transition import Transition


def main() -> None:
    """Runs on every rank."""
    each, *arguments = sys.argv[1:]
    seconds = [float(text) for text in each.split(",")]
    own = seconds[own_rank() % len(seconds)]
    learn = TensorFlowLearner.learn

    def slow(self: TensorFlowLearner, batches: Transition, weights: np.ndarray, signals: np.ndarray) -> Report:
        time.sleep(own * len(weights))
        return learn(self, batches, weights, signals)

    TensorFlowLearner.learn = slow  # type: ignore[method-assign]
    script = str(Path(__file__).resolve().parents[3] / "train.py")
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        TensorFlowLearner.learn = learn  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
