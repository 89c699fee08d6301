#!/usr/bin/env python
"""Measures the speed of this checkout and of another one, case by case, in turn.

git worktree add ../before COMMIT && make -C ../before setup
.venv/bin/python bench/versions.py --other ../before
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from parts.jobs import CARTPOLE, HEAVY_MLP, NATURE_CNN, QUIET, launcher, print_machine, run, speed, spread
from parts.versions import THIS, Version, add_version_arguments, other_version

CASES = {
    "cartpole": (CARTPOLE, {"native": (150_000, 10_000), "tensorflow": (100_000, 5_000)}),
    "lunarlander": (HEAVY_MLP, {"native": (6_000, 500), "tensorflow": (6_000, 500)}),
    "pong": (NATURE_CNN, {"tensorflow": (3_000, 250)}),
}
"""Arguments, and per learner the env steps of a run and its log period."""


def measure(version: Version, case: str, learner: str, ranks: int, kind: str) -> float:
    """Returns the env steps per second of one run."""
    arguments, lengths = CASES[case]
    env_steps, log_period = lengths[learner]
    words = [*QUIET, *arguments, "--preset", version.plain, *version.flags[learner]]
    words += ["--total-env-steps", str(env_steps), "--log-period", str(log_period)]
    before = launcher(ranks, "alone" if ranks == 1 else kind, version.programs)
    records = run(before, *words, checkout=version.checkout)
    return speed([record for record in records if record["kind"] == "training"])


def main() -> None:
    """Measures all cases and prints the versions' medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_version_arguments(parser)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--learners", nargs="+", choices=("native", "tensorflow"), default=["native", "tensorflow"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--launcher", choices=("mpirun", "horovodrun", "gloo"), default="mpirun")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file for all speeds")
    asked = parser.parse_args()
    print_machine()
    versions, table = [*other_version(asked), THIS], {}
    for case in asked.cases:
        for learner in (learner for learner in asked.learners if learner in CASES[case][1]):
            for ranks in asked.ranks:
                speeds: dict[str, list[float]] = {version.name: [] for version in versions}
                for _ in range(asked.repetitions):
                    for version in versions:
                        speeds[version.name].append(measure(version, case, learner, ranks, asked.launcher))
                first, last = (statistics.median(speeds[version.name]) for version in (versions[0], versions[-1]))
                found = " -> ".join(map(spread, speeds.values()))
                print(f"{case} {learner} -np {ranks}:  {found}  {last / first:.2f}", flush=True)
                table[f"{case} {learner} {ranks} {asked.launcher}"] = speeds
                if asked.output:
                    asked.output.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
