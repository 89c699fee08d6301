"""Draws the greedy return over global env steps: the mean over some runs of each number of ranks, and each run.

Usage: python docs/plot_learning_curve.py --output curve.png "1 rank=RUN_DIR,RUN_DIR" "2 ranks=RUN_DIR,RUN_DIR"
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def evaluations(run: Path) -> np.ndarray:
    """Returns [N, 2], env steps and mean greedy returns of a run's periodic evaluations."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return np.array([(line["env_steps"], line["mean_return"]) for line in lines if line["kind"] == "evaluation"])


def main() -> None:
    """Reads the runs named on the command line and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", metavar="LABEL=RUN_DIR,...")
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args()
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for index, group in enumerate(options.groups):
        label, _, folders = group.partition("=")
        runs = np.stack([evaluations(Path(folder)) for folder in folders.split(",")])  # [R, N, 2]
        for run in runs:
            axes.plot(*run.T, color=f"C{index}", linewidth=0.8, alpha=0.3)
        axes.plot(*runs.mean(axis=0).T, color=f"C{index}", linewidth=2.2, label=label)
    axes.set_xlabel("global env steps")
    axes.set_ylabel("mean return of 20 greedy episodes")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(options.output, dpi=130)


if __name__ == "__main__":
    main()
