#!/usr/bin/env python
"""Measures what going on at another number of ranks does to the return: CartPole, many seeds, against runs that stay.

    .venv/bin/python bench/other_ranks.py --seeds 10

Each seed learns at two ranks and then continues four times from the same checkpoint: at two ranks (bit for bit the run
that was never stopped), at one, at three, and, to show what a dip looks like, at two with its replay lost.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from parts.jobs import ROOT, environment, launcher, print_machine

from hvd_dqn.statistics import bootstrap_interval

BEFORE, MORE, PERIOD = 50_000, 10_000, 1_000
OPTIONS = (
    *("--preset", "cartpole", "--evaluation-period", str(PERIOD), "--evaluation-episodes", "10"),
    *("--final-evaluation-episodes", "1", "--checkpoint-period", "10000", "--keep-checkpoints", "1", "--name", "run"),
)
WAYS = {"two ranks": 2, "one rank": 1, "three ranks": 3, "two ranks, replay lost": 2}


def train(ranks: int, *options: str) -> None:
    """Runs train.py to its end."""
    words = [*launcher(ranks), sys.executable, str(ROOT / "train.py"), *options, "--progress", "off"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def mean_after(run_directory: Path, env_steps: int) -> float:
    """Returns the mean return of the evaluations after some env steps, ten in 10,000."""
    records = [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]
    late = [r for r in records if r["kind"] == "evaluation" and r["env_steps"] > env_steps + PERIOD // 2]
    return float(np.mean([record["mean_return"] for record in late]))


def one_seed(seed: int, folder: Path) -> list[float]:
    """Returns the mean returns of one seed: before, and after in each of the WAYS."""
    train(2, *OPTIONS, "--seed", str(seed), "--total-env-steps", str(BEFORE), "--runs-dir", str(folder))
    (run_directory,) = folder.glob("*/run")
    means = [mean_after(run_directory, BEFORE - MORE)]
    for way, ranks in WAYS.items():
        copy = shutil.copytree(run_directory, folder / way)
        options: tuple[str, ...] = ("--resume", str(copy), "--total-env-steps", str(BEFORE + MORE))
        if "lost" in way:
            shutil.rmtree(copy / "checkpoints" / "replay")
            options = (*options, "--allow-missing-replay")
        train(ranks, *options)
        means.append(mean_after(copy, BEFORE))
    return means


def main() -> None:
    """Prints the table and the paired differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    print_machine()
    print(f"| seed | before | {' | '.join(WAYS)} |\n|{'---|' * (2 + len(WAYS))}", flush=True)
    rows = []
    for seed in range(seeds):
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        try:
            rows.append(one_seed(seed, folder))
        finally:
            shutil.rmtree(folder)
        print(f"| {seed} | {' | '.join(f'{mean:.1f}' for mean in rows[-1])} |", flush=True)
    table = np.array(rows)  # [S, 1 + WAYS]
    print(f"| mean | {' | '.join(f'{mean:.1f}' for mean in table.mean(axis=0))} |")
    for k, way in enumerate(WAYS):
        if k:
            difference = table[:, 1 + k] - table[:, 1]
            low, high = bootstrap_interval(difference)
            shown = f"{difference.mean():+.1f}, 95 % interval {low:+.1f} to {high:+.1f}"
            print(f"{way} less two ranks, of the same seed: {shown}")


if __name__ == "__main__":
    main()
