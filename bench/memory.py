#!/usr/bin/env python
"""Measures resident memory: what a million stored transitions cost, and whether ten million env steps leak.

.venv/bin/python bench/memory.py
"""

from __future__ import annotations

import argparse

from parts.jobs import launcher, print_machine, train, verdict

SETTINGS = (
    *("--preset", "dqn", "--num-envs", "256", "--hidden-sizes", "64", "--train-period", "512"),
    *("--global-batch-size", "32"),
)


def main() -> None:
    """Runs one long job with a replay of a million, and one with a small replay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-steps", type=int, default=10_000_000)
    env_steps = parser.parse_args().env_steps
    print_machine()
    empty = train(launcher(1, "alone"), *SETTINGS, "--replay-capacity", "1000", env_steps=100_000, log_period=50_000)
    base = empty[-1]["resident_mebibytes"]
    filled = train(
        *(launcher(1, "alone"), *SETTINGS, "--replay-capacity", "1000000"), env_steps=env_steps, log_period=100_000
    )
    at = {record["env_steps"] // 100_000: record["resident_mebibytes"] for record in filled}
    full = next(value for step, value in at.items() if step >= 11)
    cost, growth = (full - base) * 2**20 / 1e6, filled[-1]["resident_mebibytes"] - full
    print(f"a job with an empty replay: {base:.0f} MiB resident")
    print(f"1,000,000 CartPole transitions: {cost:.0f} MB more (bar 50) {verdict(cost <= 50)}")
    shown = ", ".join(f"{step / 10:g} M: {value:.1f}" for step, value in at.items() if step % 10 == 0)
    print(f"resident MiB at env step {shown}")
    print(f"growth from 1.1 M to {env_steps / 1e6:g} M env steps: {growth:.1f} MiB {verdict(growth < 5)}")


if __name__ == "__main__":
    main()
