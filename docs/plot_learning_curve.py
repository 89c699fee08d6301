"""Draws the greedy return over global env steps of several runs of one configuration.

python docs/plot_learning_curve.py --output docs/learning_curve.png "1 rank=runs/CartPole-v1/np1" "2 ranks=..."
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def evaluations(run: Path) -> tuple[list[int], list[float]]:
    """Returns env steps and mean greedy returns of a run's periodic evaluations."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    points = [(line["env_steps"], line["mean_return"]) for line in lines if line["kind"] == "evaluation"]
    return [x for x, _ in points], [y for _, y in points]


def main() -> None:
    """Reads the runs named on the command line and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN_DIR")
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args()
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for label, run in (text.split("=", 1) for text in options.runs):
        axes.plot(*evaluations(Path(run)), label=label, linewidth=1.8)
    environment = Path(options.runs[0].split("=", 1)[1]).parent.name
    axes.set_xlabel("global env steps")
    axes.set_ylabel("mean return of 20 greedy episodes")
    axes.set_title(environment)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(options.output, dpi=130)


if __name__ == "__main__":
    main()
