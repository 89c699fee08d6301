#!/usr/bin/env python
"""Trains what the documentation says can be learned, seed by seed, and prints and draws the results.

Each finished run becomes one line of bench/results/learned.jsonl. A run that was interrupted resumes from its last
checkpoint in .bench/learned, and finished runs are not repeated. `last` is the last periodic evaluation, greedy and of
the last weights; `training` is the mean return of the last 100 training episodes, exploration included.

    .venv/bin/python bench/learned.py --tasks minatar-breakout-dqn --seeds 0 1 2
    .venv/bin/python bench/learned.py --plot docs/pictures
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from parts.jobs import ROOT, environment, launcher, print_machine, verdict

from hvd_dqn.statistics import bootstrap_interval

RESULTS = Path(__file__).parent / "results" / "learned.jsonl"
RUNS = ROOT / ".bench" / "learned"


class Task(NamedTuple):
    """What is to be learned, and how far."""

    game: str
    """The picture in which its curve is drawn."""
    flags: tuple[str, ...]
    measure: str = "last"
    """Or training: which mean return is compared with the aim."""
    reach: float | None = None
    source: str = ""
    """Of the aim."""
    published: tuple[tuple[int, float], ...] = ()
    """Its curve: env steps and mean returns."""


def _minatar(game: str, preset: str, *flags: str, reach: float | None = None, source: str = "") -> Task:
    words = ("--preset", preset, "--env", f"MinAtar/{game}-v0", "--total-env-steps", "2000000", *flags)
    return Task(f"MinAtar {game}", words, "training", reach, source)


_YOUNG = "Young and Tian (2019), DQN at 2 M"
TASKS = {
    "cartpole": Task("CartPole", ("--preset", "cartpole"), "last", 475.0, "the environment's own threshold"),
    "lunarlander": Task("LunarLander", ("--preset", "lunarlander"), "last", 220.0, "RL Zoo's QR-DQN"),
    "acrobot": Task("Acrobot", ("--preset", "acrobot"), "last", -75.0, "RL Zoo's DQN"),
    "mountaincar": Task("MountainCar", ("--preset", "mountaincar"), "last", -100.0, "RL Zoo's QR-DQN"),
    "pong-nature": Task("Pong, nature", ("--preset", "pong"), "last", 18.0, "below RL Zoo's 19.1 at 2 M"),
    "minatar-asterix-dqn": _minatar("Asterix", "minatar-dqn", reach=14.3, source=_YOUNG),
    "minatar-breakout-dqn": _minatar("Breakout", "minatar-dqn", reach=9.7, source=_YOUNG),
    "minatar-asterix-rainbow": _minatar("Asterix", "minatar-rainbow", reach=1.5 * 14.3, source=f"1.5 x {_YOUNG}"),
    "minatar-breakout-rainbow": _minatar("Breakout", "minatar-rainbow", reach=1.5 * 9.7, source=f"1.5 x {_YOUNG}"),
    **{
        f"minatar-{game.lower()}-{name}": _minatar(game, "minatar-dqn", *flags)
        for game in ("Asterix", "Breakout")
        for name, flags in {
            "n3": ("--n-step", "3"),
            "double": ("--double",),
            "dueling": ("--dueling",),
            "prioritized": ("--replay", "prioritized"),
            "munchausen": ("--algorithm", "munchausen"),
            "munchausen-n3": ("--algorithm", "munchausen", "--n-step", "3"),
            "hl-gauss-n3": ("--algorithm", "hl-gauss", "--n-step", "3", "--value-min", "-2", "--value-max", "60"),
            "qr-n3": ("--algorithm", "qr", "--n-step", "3"),
        }.items()
    },
}
"""What a documented number needs."""


def read(path: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Returns the finished runs by task, ranks and seed."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return {(record["task"], record["ranks"], record["seed"]): record for record in records}


def measure(name: str, flags: tuple[str, ...], ranks: int, seed: int, core: int, runs: Path, path: Path) -> None:
    """Runs one job to its end, from where it was interrupted, and appends its line."""
    before = ["taskset", "-c", str(core)] if ranks == 1 else launcher(ranks, "mpirun")
    run_name = f"{name}-{ranks}-{seed}"
    words = [*before, sys.executable, str(ROOT / "train.py"), *flags, "--seed", str(seed)]
    words += ["--runs-dir", str(runs), "--name", run_name, "--resume", "auto", "--progress", "off"]
    since = time.monotonic()
    job = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if job.returncode:
        raise SystemExit(f"{' '.join(words)}:\n{job.stdout[-2000:]}{job.stderr[-2000:]}")
    (folder,) = {path.parent for path in runs.glob(f"**/{run_name}/metrics.jsonl")}
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    training = [(r["env_steps"], r["mean_return"]) for r in records if r["kind"] == "training"]
    found = {
        "task": name,
        "ranks": ranks,
        "seed": seed,
        "commit": _commit(),
        "flags": " ".join(flags),
        "seconds": round(time.monotonic() - since),
        "training": _thinned([point for point in training if point[1] is not None]),
        "evaluations": [(r["env_steps"], r["mean_return"]) for r in records if r["kind"] == "evaluation"],
        "best_checkpoint": next((r["mean_return"] for r in records if r["kind"] == "final_evaluation"), None),
    }
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(found) + "\n")
    shutil.rmtree(folder)


def report(tasks: dict[str, Task], found: dict[tuple[str, int, int], dict[str, Any]]) -> None:
    """Prints each task's results beside its aim."""
    print(f"\n{'task':<28}{'W':>2} {'seeds':>5}  {'mean (95 % interval)':<28}{'aim':>7}  each seed")
    for name, ranks in sorted({(name, ranks) for name, ranks, _ in found}):
        task = tasks[name]
        runs = [record for (other, w, _), record in sorted(found.items()) if (other, w) == (name, ranks)]
        curve = "evaluations" if task.measure == "last" else "training"
        values = np.array([record[curve][-1][1] for record in runs])
        low, high = bootstrap_interval(values)
        each = " ".join(f"{value:.1f}" for value in values)
        aim, outcome = (f"{task.reach:.1f}", verdict(values.mean() >= task.reach)) if task.reach else ("-", "")
        interval = f"{values.mean():.1f} ({low:.1f} to {high:.1f})"
        print(f"{name:<28}{ranks:>2} {len(values):>5}  {interval:<28}{aim:>7}  {each} {outcome} [{task.measure}]")


def draw(tasks: dict[str, Task], found: dict[tuple[str, int, int], dict[str, Any]], folder: Path) -> None:
    """Draws one picture per game: each task's mean curve over its seeds, the seeds' range, and what was published."""
    folder.mkdir(exist_ok=True, parents=True)
    for game in sorted({tasks[name].game for name, _, _ in found}):
        figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
        kinds = sorted({(name, ranks) for name, ranks, _ in found if tasks[name].game == game})
        for color, (name, ranks) in enumerate(kinds):
            runs = [record for (other, w, _), record in found.items() if (other, w) == (name, ranks)]
            curve = "evaluations" if tasks[name].measure == "last" else "training"
            steps = np.array([step for step, _ in runs[0][curve]])
            values = np.array([np.interp(steps, *np.array(record[curve]).T) for record in runs])
            axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=f"C{color}", alpha=0.15, linewidth=0)
            label = f"{name}, {ranks} rank(s), {len(runs)} seeds"
            axes.plot(steps, values.mean(axis=0), color=f"C{color}", linewidth=2, label=label)
        for published, source in {(tasks[name].published, tasks[name].source) for name, _ in kinds}:
            if published:
                axes.plot(*zip(*published, strict=True), "k--o", markersize=3, linewidth=1, label=source)
        axes.set_title(game)
        axes.set_xlabel("env steps")
        axes.set_ylabel("mean return" if curve == "training" else "mean return of greedy episodes")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(folder / f"{game.replace(' ', '-').lower()}.png", dpi=130)
        plt.close(figure)


def _thinned(points: list[Any], most: int = 100) -> list[Any]:
    return points[:: -(-len(points) // most)][:most] + points[-1:] if len(points) > most else points


def _commit() -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()


def main(tasks: dict[str, Task], results: Path, description: str | None) -> None:
    """Measures what is missing, seed by seed, then reports and draws.

    Args:
      tasks: what can be learned.
      results: file of the lines, unless the command line names another.
      description: of the program.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=[], metavar="TASK", help="what to train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1])
    parser.add_argument("--core", type=int, default=0, help="of a run on one rank")
    parser.add_argument("--total-env-steps", help="of each run, for a short try; keep its --results apart")
    parser.add_argument("--results", type=Path, default=results, help="file of the lines")
    parser.add_argument("--runs-dir", type=Path, default=RUNS, help="folder of the runs that are under way")
    parser.add_argument("--plot", type=Path, help="folder of the pictures to draw")
    arguments = parser.parse_args()
    print_machine()
    steps = ("--total-env-steps", arguments.total_env_steps) if arguments.total_env_steps else ()
    for seed in arguments.seeds:
        for name in arguments.tasks:
            for ranks in arguments.ranks:
                if (name, ranks, seed) not in read(arguments.results):
                    flags = (*tasks[name].flags, *steps)
                    runs, path = arguments.runs_dir.absolute(), arguments.results
                    measure(name, flags, ranks, seed, arguments.core, runs, path)
                    print(f"{name}, {ranks} rank(s), seed {seed}: done", flush=True)
    found = read(arguments.results)
    report(tasks, found)
    if arguments.plot:
        draw(tasks, found, arguments.plot)


if __name__ == "__main__":
    main(TASKS, RESULTS, __doc__)
