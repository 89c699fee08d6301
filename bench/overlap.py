#!/usr/bin/env python
"""Measures --policy-lag 1 (collecting beside learning) against 0 on one rank with two cores.

.venv/bin/python bench/overlap.py
"""

from __future__ import annotations

import argparse
import statistics

from parts.jobs import CARTPOLE, HEAVY_MLP, NATURE_CNN, print_machine, speed, spread, train

CASES = {
    "CartPole, MLP 120-84, batch 128, one update per 10 env steps": (CARTPOLE, 100_000, 10_000),
    "Pong, Nature CNN, batch 32, one update per 4 env steps": (NATURE_CNN, 3_000, 500),
    "Pong, Nature CNN, batch 32, one update per 16 env steps": ((*NATURE_CNN, "--train-period", "16"), 6_000, 1_000),
    "LunarLander, MLP 512-512, batch 512, --backend tensorflow": (
        (*HEAVY_MLP, "--train-period", "16", "--backend", "tensorflow"),
        10_000,
        2_000,
    ),
}
"""Arguments, env steps, log period."""


def main() -> None:
    """Measures all cases, with and without the lag in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    print_machine()
    for name, (arguments, env_steps, log_period) in CASES.items():
        speeds: dict[str, list[float]] = {"0": [], "1": []}
        for _ in range(repetitions):
            for lag, values in speeds.items():
                records = train([], *arguments, "--policy-lag", lag, env_steps=env_steps, log_period=log_period)
                values.append(speed(records))
        print(f"\n{name}: env steps/s")
        for lag, values in speeds.items():
            print(f"  --policy-lag {lag}  {spread(values)}")
        gain = statistics.median(speeds["1"]) / statistics.median(speeds["0"])
        print(f"  gain {gain:.2f}", flush=True)


if __name__ == "__main__":
    main()
