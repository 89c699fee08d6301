#!/usr/bin/env python
"""Measures whether ranks, learner or policy lag change the learning curve of CartPole, and draws it.

Each run becomes one line of bench/results/curves.jsonl; runs that are there already are not repeated, so an
interrupted measurement continues where it was. With --other the same runs of another checkout are measured, too.

    .venv/bin/python bench/curves.py --plot docs/learning_curve.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from parts.jobs import launcher, print_machine, run, verdict
from parts.versions import THIS, Version, add_version_arguments, other_version

from hvd_dqn.statistics import bootstrap_interval

RESULTS = Path(__file__).parent / "results" / "curves.jsonl"


class Kind(NamedTuple):
    """What the runs of one curve have in common."""

    learner: str
    ranks: int
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Returns a label."""
        return " ".join([self.learner, f"-np {self.ranks}", *self.flags])


RESET = ("--checkpoint-boundary", "reset")
"""What version 0.1.0 always did: end all episodes at a checkpoint."""
KINDS = (
    *(Kind(learner, ranks) for learner in ("native", "tensorflow") for ranks in (1, 2, 4)),
    Kind("native", 1, ("--policy-lag", "1")),
)
"""Each is compared with the first, and with the same kind of the other version."""
KINDS_NOW = tuple(kind._replace(flags=RESET) for kind in KINDS if not kind.flags and kind.ranks < 4)
"""Measured in this version only, and compared with the same kind of the other version, which resets anyway."""

Curves = dict[tuple[str, str], dict[int, np.ndarray]]
"""(version, kind) -> seed -> [N, 2], env steps and mean greedy returns of the periodic evaluations."""


def read(path: Path) -> Curves:
    """Returns the curves that were measured."""
    found: Curves = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        record = json.loads(line)
        found.setdefault((record["version"], record["kind"]), {})[record["seed"]] = np.array(record["evaluations"])
    return found


def measure(version: Version, kind: Kind, seed: int, path: Path) -> None:
    """Runs one job and appends its line."""
    before = launcher(kind.ranks, "alone" if kind.ranks == 1 else "mpirun", version.programs)
    flags = [*version.flags[kind.learner], *kind.flags]
    words = ("--preset", version.plain, "--seed", str(seed), "--final-evaluation-episodes", "1", *flags)
    records = run(before, *words, checkout=version.checkout)
    evaluations = [(r["env_steps"], r["mean_return"]) for r in records if r["kind"] == "evaluation"]
    record = {"version": version.name, "kind": str(kind), "seed": seed, "evaluations": evaluations}
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def compare(values: dict[int, float], other: dict[int, float]) -> str:
    """Formats the mean difference over common seeds: a seed's network starts alike at any number of ranks."""
    differences = np.array([values[seed] - other[seed] for seed in sorted(values.keys() & other.keys())])
    low, high = bootstrap_interval(differences)
    return f"{differences.mean():+6.1f} ({low:+.1f} to {high:+.1f}) {verdict(low <= 0.0 <= high)}"


def report(curves: Curves) -> None:
    """Prints each curve's mean, and its differences."""
    means = {key: {seed: values[:, 1].mean() for seed, values in runs.items()} for key, runs in curves.items()}
    first = means[THIS.name, str(KINDS[0])]
    print("\nPlain DQN on CartPole: mean greedy return over the curve; differences with 95 % interval (bar: 0 inside)")
    for (version, kind), values in sorted(means.items()):
        print(f"  {version:<9}{kind:<44}{len(values):>3} seeds {np.mean(list(values.values())):6.1f}", end="")
        if values is not first:
            print(f"  from {THIS.name}, {KINDS[0]}: {compare(values, first)}", end="")
        for same in (kind, " ".join([kind, *RESET])) if version != THIS.name else ():
            if (THIS.name, same) in means:
                print(f"  from {THIS.name}, {same}: {compare(values, means[THIS.name, same])}", end="")
        print()


def draw(curves: Curves, path: str) -> None:
    """Draws this version's mean over the seeds for each number of ranks, with its 95 % bootstrap interval.

    Ranks with a single seed so far are left out.
    """
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for index, kind in enumerate(kind for kind in KINDS if kind.learner == "native" and not kind.flags):
        measured = curves.get((THIS.name, str(kind)), {})
        if len(measured) < 2:
            continue
        runs = np.stack(list(measured.values()))  # [S, N, 2]
        env_steps = runs[0, :, 0]
        low, high = np.array([bootstrap_interval(values) for values in runs[:, :, 1].T]).T
        axes.fill_between(env_steps, low, high, color=f"C{index}", alpha=0.15, linewidth=0)
        label = f"{kind.ranks} rank{'s' if kind.ranks > 1 else ''}, {len(measured)} seeds"
        axes.plot(env_steps, runs[:, :, 1].mean(axis=0), color=f"C{index}", linewidth=2, label=label)
    axes.set_xlabel("global env steps")
    axes.set_ylabel("mean return of 20 greedy episodes")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measures what is missing, seed by seed, then reports and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_version_arguments(parser)
    parser.add_argument("--repetitions", type=int, default=20, help="seeds of each kind")
    parser.add_argument(
        "--ranks", type=int, nargs="*", default=[1, 2, 4], help="measure these kinds alone now; without a number none"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the lines")
    parser.add_argument("--plot", help="the picture to write")
    arguments = parser.parse_args()
    print_machine()
    arguments.results.parent.mkdir(exist_ok=True)
    versions = [THIS, *other_version(arguments)]
    for seed in range(arguments.repetitions):
        for version in versions:
            for kind in KINDS + (KINDS_NOW if version is THIS else ()):
                if kind.ranks in arguments.ranks and seed not in read(arguments.results).get(
                    (version.name, str(kind)), {}
                ):
                    measure(version, kind, seed, arguments.results)
    curves = read(arguments.results)
    report(curves)
    if arguments.plot:
        draw(curves, arguments.plot)


if __name__ == "__main__":
    main()
