#!/usr/bin/env python
"""Trains SlateQ on interest evolution, its published and its myopic form: `python examples/slates/run.py`.

Each finished run becomes a line of --results. A run that was interrupted resumes from its last checkpoint, and finished
runs are not repeated. All are served to 2,000 new users, in three ways. At the end the program prints a table next to
the published numbers, and draws it with the learning curves (`--plot docs/slates.png`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from interest import all_slates
from serving import actions_of, greedy, items_of, serve, top_k

import hvd_dqn
from hvd_dqn.statistics import bootstrap_interval

HERE = Path(__file__).parent
SETTINGS = (
    *("--env", f"{HERE / 'interest.py'}:InterestEvolution-v0"),
    *("--algorithm", f"{HERE / 'slateq.py'}:SlateQ", "--double"),
    *("--hidden-sizes", "32", "32", "--global-batch-size", "64", "--train-period", "16", "--max-grad-norm", "0"),
    *("--learning-rate", "5e-4", "--learning-rate-end", "0.05", "--target-update-period", "50"),
    *("--replay-capacity", "300000", "--epsilon-decay-env-steps", "30000", "--epsilon-end", "0.05"),
    *("--log-period", "10000"),
)
TASKS = {"slateq": ("1", "network"), "null-zero": ("1", "network_with_null_zero"), "myopic": ("0", "network")}
"""Gamma and network of each task. A session ends with probability 1, so the paper does not discount."""
PUBLISHED = {
    ("random", "random"): 159.2,
    ("myopic", "top-k"): 166.3,
    ("myopic", "greedy"): 166.3,
    ("null-zero", "top-k"): 169.0,
    ("null-zero", "greedy"): 173.8,
    ("null-zero", "optimal"): 174.6,
}
"""Mean returns of Ie et al. (2019), section 7.1, over 5,000 users and after 300,000 training steps; of SlateQ those of
optimal training. Its slates are optimised with a null item's value of 0."""
USERS_SEED = 1_000_000
"""Of the users that all are served to."""


def train(task: str, seed: int, ranks: int, arguments: argparse.Namespace) -> Path:
    """Trains one run, from where it was interrupted, and returns its run directory."""
    program = [str(HERE.parents[1] / "train.py"), *SETTINGS, "--seed", str(seed)]
    gamma, network = TASKS[task]
    program += ["--gamma", gamma, "--network", f"{HERE / 'slateq.py'}:{network}"]
    name = f"{task}-np{ranks}-{seed}"
    period, sessions = str(arguments.env_steps // 10), str(min(100, arguments.users))
    program += ["--total-env-steps", str(arguments.env_steps), "--checkpoint-period", period]
    program += [
        "--evaluation-period",
        period,
        "--evaluation-episodes",
        sessions,
        "--final-evaluation-episodes",
        sessions,
    ]
    program += ["--runs-dir", arguments.runs_dir, "--name", name, "--resume", "auto", "--progress", "off"]
    # Without the --, horovodrun takes --network for an abbreviation of its own options.
    launcher = [str(Path(sys.executable).parent / "horovodrun"), "-np", str(ranks), "--"] if ranks > 1 else []
    done = subprocess.run([*launcher, sys.executable, *program], check=False, stdout=subprocess.DEVNULL)
    if done.returncode:  # 75 after Ctrl-C: the run is saved, and the same command resumes it
        raise SystemExit(done.returncode)
    (metrics,) = Path(arguments.runs_dir).glob(f"*/{name}/metrics.jsonl")
    return metrics.parent


def ways_to_serve(run: hvd_dqn.Run) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Returns functions from observations [E, n] to actions [E] of a trained agent."""
    slates = all_slates(10, 3)

    def outputs(observation: np.ndarray) -> np.ndarray:
        return np.asarray(run.agent.network(run.agent.parameters, observation))  # [E, A, 2 + k]

    def by(rule: Callable[..., np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda observation: actions_of(rule(items_of(observation, outputs(observation), slates), 3), slates)

    return {"top-k": by(top_k), "greedy": by(greedy), "optimal": run.policy}


def measure(task: str, seed: int, ranks: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and serves, and returns the line of the results."""
    since = time.monotonic()
    if task == "random":
        rng = np.random.default_rng(seed)
        ways, curve = {"random": lambda observation: rng.integers(len(all_slates(10, 3)), size=len(observation))}, []
    else:
        place = train(task, seed, ranks, arguments)
        records = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        curve = [(r["env_steps"], r["mean_return"]) for r in records if r["kind"] == "evaluation"]
        ways = ways_to_serve(hvd_dqn.load(place, checkpoint="last"))
    served = {way: serve(choose, arguments.users, USERS_SEED + seed) for way, choose in ways.items()}
    return {
        "task": task,
        "seed": seed,
        "ranks": ranks,
        "env_steps": arguments.env_steps,
        "seconds": round(time.monotonic() - since),
        "served": {
            way: {"mean_return": round(float(own.returns.mean()), 3), "mean_quality": round(own.quality, 4)}
            for way, own in served.items()
        },
        "curve": curve,
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rows_of(found: list[dict[str, Any]]) -> list[tuple[str, int, str, np.ndarray, float]]:
    """Returns task, ranks, way to serve, mean returns [seeds] and mean quality of each row of the table."""
    kinds = [(task, ranks, way) for task in ("random", *TASKS) for ranks in (1, 2)
             for way in ("random", "top-k", "greedy", "optimal")]  # fmt: skip
    rows = []
    for task, ranks, way in kinds:
        served = [r["served"][way] for r in found if (r["task"], r["ranks"]) == (task, ranks) and way in r["served"]]
        if served:
            values = np.array([own["mean_return"] for own in served])
            rows.append((task, ranks, way, values, float(np.mean([own["mean_quality"] for own in served]))))
    return rows


def report(found: list[dict[str, Any]]) -> None:
    """Prints the returns next to the published ones."""
    print(
        f"{'task':<10}{'np':>3}  {'serving':<9}{'seeds':>5}  {'mean return (95 % interval)':<30}{'paper':>6}  quality"
    )
    for task, ranks, way, values, quality in rows_of(found):
        low, high = bootstrap_interval(values)
        interval = f"{values.mean():.1f} ({low:.1f} to {high:.1f})"
        paper = PUBLISHED.get((task, way), "-")
        print(f"{task:<10}{ranks:>3}  {way:<9}{len(values):>5}  {interval:<30}{paper:>6}  {quality:.3f}")


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draws the learning curves, mean and range over the seeds, and the returns of the ways to serve."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 3.8), layout="constrained", width_ratios=(3, 2))
    kinds = sorted({(r["task"], r["ranks"]) for r in found if r["curve"]}, reverse=True)
    for color, (task, ranks) in enumerate(kinds):
        curves = [np.array(r["curve"]) for r in found if (r["task"], r["ranks"]) == (task, ranks)]
        steps = curves[0][:, 0]
        values = np.array([np.interp(steps, *curve.T) for curve in curves])  # [seeds, points]
        left.fill_between(steps, values.min(axis=0), values.max(axis=0), color=f"C{color}", alpha=0.15, linewidth=0)
        label = f"{task}, gamma {TASKS[task][0]}, {ranks} rank(s), {len(curves)} seeds"
        left.plot(steps, values.mean(axis=0), color=f"C{color}", label=label)
    left.axhline(PUBLISHED["null-zero", "optimal"], color="0.4", linestyle="--", linewidth=1, label="published optimum")
    left.set(title="Interest evolution", xlabel="env steps", ylabel="mean return of 100 sessions")
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    rows = [row for row in rows_of(found) if row[1] == 1]
    places = np.arange(len(rows))
    right.barh(places, [row[3].mean() for row in rows], height=0.6, color="C0", label="here, one rank")
    papers = [(place, PUBLISHED[row[0], row[2]]) for place, row in enumerate(rows) if (row[0], row[2]) in PUBLISHED]
    right.plot([paper for _, paper in papers], [place for place, _ in papers], "k|", markersize=16, label="published")
    right.set(yticks=places, xlim=(150, None), xlabel="mean return of 2,000 sessions")
    right.set_yticklabels([task if task == way else f"{task}, {way}" for task, _, way, _, _ in rows])
    right.invert_yaxis()
    right.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measures what is missing, then reports and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=("random", *TASKS), default=["random", *TASKS], metavar="TASK")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1], help="of each run: 1, 2 or both")
    parser.add_argument("--env-steps", type=int, default=100_000, help="of each run")
    parser.add_argument(
        "--users",
        type=int,
        default=2_000,
        help="that every trained agent is served to; up to 100 of them also play during training",
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl", help="file of the lines")
    parser.add_argument("--runs-dir", default="runs/slates")
    parser.add_argument("--plot", type=Path, help="picture to draw")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    wanted = [(task, seed, ranks) for seed in arguments.seeds for ranks in arguments.ranks for task in arguments.tasks
              if task != "random" or ranks == 1]  # fmt: skip
    for task, seed, ranks in wanted:
        if (task, seed, ranks) not in {(r["task"], r["seed"], r["ranks"]) for r in read(arguments.results)}:
            line = json.dumps(measure(task, seed, ranks, arguments))
            with arguments.results.open("a") as file:
                file.write(line + "\n")
            print(f"{task}, seed {seed}, {ranks} rank(s): done", flush=True)
    report(read(arguments.results))
    if arguments.plot:
        draw(read(arguments.results), arguments.plot)


if __name__ == "__main__":
    main()
