#!/usr/bin/env python
"""Measures the bare operations of bench/throughput.py's cases on one core: no job on it can be faster than these allow.

What they allow is printed in env steps per second.

.venv/bin/python bench/limits.py
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[pool] = "1"

import envpool  # noqa: E402
import numpy as np  # noqa: E402
from comparison.cases import CASES, Case  # noqa: E402
from parts.jobs import ROOT, print_machine, spread  # noqa: E402

from hvd_dqn.agent.numpy_mlp import multiply  # noqa: E402

INPUTS_AND_ACTIONS = {"CartPole-v1": (4, 2), "LunarLander-v3": (8, 4), "Flat/Breakout-v1": (400, 6)}
TORCH_CNN = Path(__file__).parent / "programs" / "torch_cnn.py"


def microseconds(operation: Callable[[], object], repetitions: int, calls: int) -> list[float]:
    """Returns the time of a call, once per repetition, after one that does not count."""
    times = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        for _ in range(calls):
            operation()
        times.append(1e6 * (time.perf_counter() - start) / calls)
    return times[1:]


def update(case: Case) -> Callable[[], None]:
    """Returns the matrix products of one update: two forward passes, one backward, and nothing else."""
    inputs, actions = INPUTS_AND_ACTIONS[case.env]
    widths, rng = (inputs, *case.hidden_sizes, actions), np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(size=(rows, columns)).astype(np.float32)

    rows = [matrix(case.batch_size, width + 1) for width in widths]  # a column of ones carries the bias
    gradients = [np.empty_like(layer) for layer in rows]
    layers = [matrix(fan_in + 1, fan_out) for fan_in, fan_out in itertools.pairwise(widths)]
    changes = [np.empty_like(layer) for layer in layers]

    def run() -> None:
        for _ in range(2):
            for depth, layer in enumerate(layers):
                multiply(rows[depth], layer, out=gradients[depth + 1][:, :-1])
        for depth in range(len(layers) - 1, -1, -1):
            delta = rows[depth + 1][:, :-1]
            multiply(rows[depth].T, delta, out=changes[depth])
            if depth > 0:
                np.matmul(delta, layers[depth].T, out=gradients[depth])

    return run


def lunar_lander(num_envs: int) -> Callable[[], object]:
    """Returns a step of EnvPool's LunarLander under a random policy."""
    envs = envpool.make("LunarLander-v3", env_type="gymnasium", num_envs=num_envs, num_threads=1, seed=0)
    envs.reset()
    rng = np.random.default_rng(0)
    return lambda: envs.step(rng.integers(4, size=num_envs))


def main() -> None:
    """Measures all on core 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--peers-python", default=str(ROOT / ".bench" / "peers" / "bin" / "python"))
    arguments = parser.parse_args()
    print_machine()
    os.sched_setaffinity(0, {0})
    stepping = [time / 160 for time in microseconds(lunar_lander(160), arguments.repetitions, 200)]
    print(f"\nEnvPool's LunarLander, random policy: {spread(stepping, 1)} microseconds per env step")
    for case in CASES:
        if case.hidden_sizes:
            times = microseconds(update(case), arguments.repetitions, 300)
            per_step = statistics.median(times) / case.train_period
            collecting = statistics.median(stepping) if case.env == "LunarLander-v3" else 0.0
            most, parts = 1e6 / (per_step + collecting), "both" if collecting else "these"
            print(
                f"{case.name}: matrix products {spread(times)} microseconds per update; {parts} allow {most:,.0f} per s"
            )
    case = next(case for case in CASES if case.is_atari)
    command = [arguments.peers_python, str(TORCH_CNN), str(case.batch_size)]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    if output.returncode:
        print(f"PyTorch does not run, make its environment with bench/peers/install.sh:\n{output.stderr[-500:]}")
        sys.exit(1)
    times = [float(line) for line in output.stdout.split()]
    steps = 1e3 * case.train_period / statistics.median(times)
    print(f"{case.name}: the CNN's gradient in PyTorch {spread(times, 1)} ms per update; it allows {steps:,.0f} per s")


if __name__ == "__main__":
    main()
