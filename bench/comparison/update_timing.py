"""What is updated and how it is timed; imported by our process and by the peers', so it needs NumPy alone.

Processor time counts, not the clock: the process has one core, and the machine may be shared.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

UPDATES_PER_CALL = 4
"""As 16 environments with one update per 4 env steps make them."""
ROWS = 2_000
"""Transitions in the replay."""
ATOMS, QUANTILES, FRACTIONS = 51, 200, 8
"""Of C51 and Rainbow (Bellemare et al. 2017), QR-DQN and IQN (Dabney et al. 2018)."""
GAMMA, LEARNING_RATE = 0.99, 1e-4


class NetworkCase(NamedTuple):
    """A network and its observations."""

    shape: tuple[int, ...]
    dtype: str
    actions: int
    hidden: tuple[int, ...]
    batch: int


CASES = {
    "mlp": NetworkCase((8,), "float32", 4, (128, 128), 128),
    "minatar": NetworkCase((10, 10, 4), "uint8", 6, (128,), 32),
    "cnn": NetworkCase((84, 84, 4), "uint8", 6, (512,), 32),
}


def columns(case: NetworkCase) -> dict[str, np.ndarray]:
    """Returns random transitions [ROWS]."""
    rng = np.random.default_rng(0)
    shape = (ROWS, *case.shape)
    highest = 255 if case.shape[0] > 10 else 1
    images = case.dtype == "uint8"
    observations = [
        rng.integers(0, highest + 1, shape).astype(np.uint8) if images else rng.normal(size=shape).astype(np.float32)
        for _ in range(2)
    ]
    return {
        "obs": observations[0],
        "act": rng.integers(case.actions, size=ROWS),
        "rew": rng.normal(size=ROWS).astype(np.float32),
        "next_obs": observations[1],
        "done": rng.random(ROWS) < 0.01,
    }


def measure(update: Callable[[], object], warm_seconds: float, seconds: float) -> None:
    """Prints one JSON line: updates per second of processor time, the median over calls.

    Args:
      update: samples, makes UPDATES_PER_CALL updates and sets priorities.
      warm_seconds: processor time before anything counts.
      seconds: least processor time that counts.
    """
    begin = time.process_time()
    update()
    while time.process_time() - begin < warm_seconds:
        update()
    times: list[float] = []
    begin = time.process_time()
    while time.process_time() - begin < seconds or len(times) < 5:
        before = time.process_time_ns()
        update()
        times.append((time.process_time_ns() - before) / 1e9)
    print(json.dumps({"updates_per_second": UPDATES_PER_CALL / statistics.median(times), "calls": len(times)}))
