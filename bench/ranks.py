#!/usr/bin/env python
"""Measures -np 2 (a core each) and -np 4 (two ranks a core) against -np 1 (one core), on the same global work.

.venv/bin/python bench/ranks.py [--cases pong]
"""

from __future__ import annotations

import argparse
import statistics

from parts.jobs import CARTPOLE, HEAVY_MLP, NATURE_CNN, launcher, print_machine, speed, spread, train, verdict

CASES = {
    "cartpole": ("CartPole, MLP 120-84, batch 128", CARTPOLE, 100_000, 10_000, 1.0),
    "lunarlander": ("LunarLander, MLP 512-512, batch 512", HEAVY_MLP, 8_000, 1_000, 1.7),
    "pong": ("Pong, Nature CNN, batch 32", NATURE_CNN, 3_000, 500, 1.7),
}
"""Title, arguments, env steps, log period, and the bar for -np 2 over -np 1."""


def main() -> None:
    """Measures all cases, the numbers of ranks in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    asked = parser.parse_args()
    print_machine()
    for title, arguments, env_steps, log_period, bar in map(CASES.__getitem__, asked.cases):
        speeds: dict[int, list[float]] = {1: [], 2: [], 4: []}
        for _ in range(asked.repetitions):
            for ranks, values in speeds.items():
                before = launcher(ranks, "alone" if ranks == 1 else "mpirun")
                values.append(speed(train(before, *arguments, env_steps=env_steps, log_period=log_period)))
        middle = {ranks: statistics.median(values) for ranks, values in speeds.items()}
        print(f"\n{title}: env steps/s")
        for ranks, values in speeds.items():
            print(f"  -np {ranks}  {spread(values)}")
        two, four = middle[2] / middle[1], middle[4] / middle[2]
        print(f"  -np 2 / -np 1 = {two:.2f}  (bar {bar}) {verdict(two >= bar)}")
        print(f"  -np 4 / -np 2 = {four:.2f}  (bar 0.80) {verdict(four >= 0.8)}", flush=True)


if __name__ == "__main__":
    main()
