#!/usr/bin/env python
"""Measures whether the number of ranks, or a policy lag, changes the learning curve of CartPole, and draws it.

.venv/bin/python bench/curves.py --plot curves.png
"""

from __future__ import annotations

import argparse

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from parts.jobs import launcher, print_machine, run, verdict

from hvd_dqn.statistics import bootstrap_interval

KINDS = {
    "1 rank": (launcher(1, "alone"), ()),
    "2 ranks": (launcher(2), ()),
    "4 ranks": (launcher(4), ()),
    "1 rank, policy lag 1": (launcher(1, "alone"), ("--policy-lag", "1")),
}
"""Launcher and arguments; each is compared with the first."""


def curve(kind: str, seed: int) -> np.ndarray:
    """Returns [N, 2], env steps and mean greedy returns of a run's periodic evaluations."""
    before, arguments = KINDS[kind]
    records = run(before, "--preset", "cartpole", "--seed", str(seed), "--final-evaluation-episodes", "1", *arguments)
    return np.array([(r["env_steps"], r["mean_return"]) for r in records if r["kind"] == "evaluation"])


def draw(curves: dict[str, np.ndarray], path: str) -> None:
    """Draws the mean over the seeds of curves [S, N, 2], with its 95 % bootstrap interval."""
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for index, (kind, runs) in enumerate(curves.items()):
        env_steps = runs[0, :, 0]
        low, high = np.array([bootstrap_interval(values) for values in runs[:, :, 1].T]).T
        axes.fill_between(env_steps, low, high, color=f"C{index}", alpha=0.15, linewidth=0)
        axes.plot(env_steps, runs[:, :, 1].mean(axis=0), color=f"C{index}", linewidth=2, label=kind)
    axes.set_xlabel("global env steps")
    axes.set_ylabel("mean return of 20 greedy episodes")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Runs every seed of every kind, prints each kind's mean over the curve and its difference from the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20, help="seeds of each kind")
    parser.add_argument("--plot", help="the picture to write")
    arguments = parser.parse_args()
    print_machine()
    seeds = range(arguments.repetitions)
    runs = {kind: np.stack([curve(kind, seed) for seed in seeds]) for kind in KINDS}  # [S, N, 2] each
    means = {kind: curves[:, :, 1].mean(axis=1) for kind, curves in runs.items()}  # [S] each
    print(f"\nCartPole preset, {len(seeds)} seeds: mean over the curve of the greedy return, 95 % interval")
    first = means[next(iter(KINDS))]
    for kind, values in means.items():
        low, high = bootstrap_interval(values)
        print(f"  {kind:<22}{values.mean():6.1f}  ({low:.1f} to {high:.1f})", end="")
        if values is not first:
            # Seed by seed: a seed's network starts alike at any number of ranks.
            low, high = bootstrap_interval(values - first)
            print(f"  difference {(values - first).mean():+6.1f} ({low:+.1f} to {high:+.1f})", end="  ")
            print(f"(bar: 0 inside) {verdict(low <= 0.0 <= high)}", end="")
        print()
    if arguments.plot:
        draw(runs, arguments.plot)


if __name__ == "__main__":
    main()
