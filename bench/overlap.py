#!/usr/bin/env python
"""Measures --policy-lag 1 (collecting beside learning) against 0 on one rank with two cores.

.venv/bin/python bench/overlap.py [--cases lunarlander]
"""

from __future__ import annotations

import argparse
import statistics

from parts.jobs import CARTPOLE, HEAVY_MLP, NATURE_CNN, print_machine, speed, spread, train

LUNAR_LANDER = (
    *("--env", "LunarLander-v3", "--vectorization", "sync", "--num-envs", "160"),
    *("--hidden-sizes", "256", "256", "--global-batch-size", "128", "--train-period", "8"),
)
CASES = {
    "cartpole": ("CartPole, MLP 120-84, batch 128, one update per 10 env steps", CARTPOLE, 100_000, 10_000),
    "lunarlander": (
        "LunarLander in Gymnasium's environments, MLP 256-256, batch 128, one update per 8 env steps",
        LUNAR_LANDER,
        60_000,
        10_000,
    ),
    "pong": ("Pong, Nature CNN, batch 32, one update per 4 env steps", NATURE_CNN, 3_000, 500),
    "pong-16": (
        "Pong, Nature CNN, batch 32, one update per 16 env steps",
        (*NATURE_CNN, "--train-period", "16"),
        6_000,
        1_000,
    ),
    "tensorflow": (
        "LunarLander, MLP 512-512, batch 512, --learner tensorflow",
        (*HEAVY_MLP, "--train-period", "16", "--learner", "tensorflow"),
        10_000,
        2_000,
    ),
}
"""Title, arguments, env steps, log period."""


def main() -> None:
    """Measures all cases, with and without the lag in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    asked = parser.parse_args()
    print_machine()
    for title, arguments, env_steps, log_period in map(CASES.__getitem__, asked.cases):
        speeds: dict[str, list[float]] = {"0": [], "1": []}
        for _ in range(asked.repetitions):
            for lag, values in speeds.items():
                records = train([], *arguments, "--policy-lag", lag, env_steps=env_steps, log_period=log_period)
                values.append(speed(records))
        print(f"\n{title}: env steps/s")
        for lag, values in speeds.items():
            print(f"  --policy-lag {lag}  {spread(values)}")
        gain = statistics.median(speeds["1"]) / statistics.median(speeds["0"])
        print(f"  gain {gain:.2f}", flush=True)


if __name__ == "__main__":
    main()
