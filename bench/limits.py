#!/usr/bin/env python
"""Measures the bare operations of bench/throughput.py's MLP cases on one core, which no job on it can be faster than.

What they allow is printed in env steps per second.

.venv/bin/python bench/limits.py
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[pool] = "1"

import envpool  # noqa: E402
import numpy as np  # noqa: E402
from comparison.cases import CASES, Case  # noqa: E402
from parts.jobs import print_machine, spread  # noqa: E402

INPUTS_AND_ACTIONS = {"CartPole-v1": (4, 2), "LunarLander-v3": (8, 4), "Flat/Breakout-v1": (400, 6)}
PROGRAMS = Path(__file__).parent / "programs"
PEAK = PROGRAMS / "peak.c"
FLOAT32_ON_MATRIX_UNIT = 6
"""Products of bfloat16 that make one of float32's accuracy: of three parts each, those above its rounding."""


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
    """Returns the matrix products of one update in OpenBLAS: two forward passes, one backward, and nothing else."""
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
                np.matmul(rows[depth], layer, out=gradients[depth + 1][:, :-1])
        for depth in range(len(layers) - 1, -1, -1):
            delta = rows[depth + 1][:, :-1]
            np.matmul(rows[depth].T, delta, out=changes[depth])
            if depth > 0:
                np.matmul(delta, layers[depth].T, out=gradients[depth])

    return run


def multiplications(case: Case) -> int:
    """Returns the multiplications of one update's matrix products, biases left out."""
    inputs, actions = INPUTS_AND_ACTIONS[case.env]
    layers = list(itertools.pairwise((inputs, *case.hidden_sizes, actions)))
    forward = sum(fan_in * fan_out for fan_in, fan_out in layers)
    first = layers[0][0] * layers[0][1]  # nobody asks for the observation's gradient
    return case.batch_size * (4 * forward - first)


def peaks() -> dict[str, float]:
    """Returns the multiplications with additions per second of this core's vector unit and, if any, its matrix unit."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        subprocess.run(["cc", "-O2", "-march=native", "-o", str(program), str(PEAK)], check=True)
        output = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {name: 1e9 * float(rate) for name, rate in (line.split() for line in output.splitlines())}


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
    arguments = parser.parse_args()
    print_machine()
    os.sched_setaffinity(0, {0})
    peak = peaks()
    rates = ", ".join(f"{name} unit {rate / 1e9:.0f}" for name, rate in peak.items())
    print(f"\nbillions of multiplications with additions per second: {rates}")
    peak["matrix"] = peak.get("matrix", 0.0) / FLOAT32_ON_MATRIX_UNIT
    stepping = [time / 160 for time in microseconds(lunar_lander(160), arguments.repetitions, 200)]
    print(f"\nEnvPool's LunarLander, random policy: {spread(stepping, 1)} microseconds per env step")
    for case in CASES:
        if case.hidden_sizes:
            least = {name: 1e6 * multiplications(case) / rate for name, rate in peak.items() if rate}
            least["OpenBLAS"] = statistics.median(microseconds(update(case), arguments.repetitions, 300))
            collecting = statistics.median(stepping) if case.env == "LunarLander-v3" else 0.0
            print(f"{case.name}: the matrix products of an update{' and EnvPool' if collecting else ''} allow")
            for name, time in least.items():
                most = 1e6 / (time / case.train_period + collecting)
                print(f"  {name:<9} {time:>7.1f} microseconds per update, at most {most:>9,.0f} env steps per second")


if __name__ == "__main__":
    main()
