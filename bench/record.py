#!/usr/bin/env python
"""Measures what --record-period costs: two ranks with and without films of the agent.

.venv/bin/python bench/record.py [--cases minatar]

A film takes some seconds of a core, so the period is short here: there is nearly always one in progress.
"""

from __future__ import annotations

import argparse
import statistics

from parts.jobs import CARTPOLE, launcher, print_machine, speed, spread, train

MINATAR = (
    *("--env", "MinAtar/Breakout-v1", "--global-batch-size", "32", "--train-period", "4", "--num-envs", "16"),
    *("--replay-capacity", "20000", "--learning-starts", "500"),
)
CASES = {
    "cartpole": ("CartPole, MLP 120-84, batch 128, one update per 10 env steps", CARTPOLE, 400_000, 20_000, 20_000),
    "minatar": ("MinAtar Breakout, CNN, batch 32, one update per 4 env steps", MINATAR, 12_000, 1_000, 1_000),
}
"""Title, arguments, env steps, log period, record period."""


def main() -> None:
    """Measures all cases, with and without films in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    asked = parser.parse_args()
    print_machine()
    for title, arguments, env_steps, log_period, period in map(CASES.__getitem__, asked.cases):
        speeds: dict[int, list[float]] = {0: [], period: []}
        for _ in range(asked.repetitions):
            for own, values in speeds.items():
                records = train(
                    launcher(asked.ranks),
                    *arguments,
                    *("--record-period", str(own)),
                    env_steps=env_steps,
                    log_period=log_period,
                )
                values.append(speed(records))
        print(f"\n{title}, {asked.ranks} ranks: env steps/s")
        for own, values in speeds.items():
            print(f"  --record-period {own:<6} {spread(values)}")
        print(f"  ratio {statistics.median(speeds[period]) / statistics.median(speeds[0]):.3f}", flush=True)


if __name__ == "__main__":
    main()
