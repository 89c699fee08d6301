#!/usr/bin/env python
"""Measures the speed of this checkout beside another one, case by case, in turn.

git worktree add ../before COMMIT && make -C ../before setup
.venv/bin/python bench/versions.py ../before --other-native=--backend=auto --other-tensorflow=--backend=tensorflow
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from parts.jobs import BIN, CARTPOLE, HEAVY_MLP, NATURE_CNN, QUIET, ROOT, launcher, print_machine, run, speed, spread

CASES = {
    "cartpole": (CARTPOLE, {"native": (150_000, 10_000), "tensorflow": (100_000, 5_000)}),
    "lunarlander": (HEAVY_MLP, {"native": (6_000, 500), "tensorflow": (6_000, 500)}),
    "pong": (NATURE_CNN, {"tensorflow": (3_000, 250)}),
}
"""Arguments, and per learner the env steps of a run and its log period."""


def measure(checkout: Path, case: str, learner: str, ranks: int, kind: str, flags: list[str]) -> float:
    """Returns the env steps per second of one run."""
    arguments, lengths = CASES[case]
    env_steps, log_period = lengths[learner]
    programs = BIN if checkout == ROOT else checkout / ".venv" / "bin"
    words = [*QUIET, *arguments, *flags, "--total-env-steps", str(env_steps), "--log-period", str(log_period)]
    records = run(launcher(ranks, "alone" if ranks == 1 else kind, programs), *words, checkout=checkout)
    return speed([record for record in records if record["kind"] == "training"])


def main() -> None:
    """Measures all cases and prints both versions' medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=lambda text: Path(text).resolve(), help="a checkout with its .venv")
    parser.add_argument("--other-native", default="--learner=native", help="its flag for the native learner")
    parser.add_argument("--other-tensorflow", default="--learner=tensorflow", help="its flag for TensorFlow's")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--learners", nargs="+", choices=("native", "tensorflow"), default=["native", "tensorflow"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--launcher", choices=("mpirun", "horovodrun", "gloo"), default="mpirun")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file for all speeds")
    asked = parser.parse_args()
    print_machine()
    other_flags = {"native": asked.other_native, "tensorflow": asked.other_tensorflow}
    table = {}
    for case in asked.cases:
        for learner in (learner for learner in asked.learners if learner in CASES[case][1]):
            for ranks in asked.ranks:
                sides = {"other": (asked.other, other_flags[learner]), "this": (ROOT, f"--learner={learner}")}
                speeds: dict[str, list[float]] = {side: [] for side in sides}
                for _ in range(asked.repetitions):
                    for side, (checkout, flag) in sides.items():
                        speeds[side].append(measure(checkout, case, learner, ranks, asked.launcher, [flag]))
                ratio = statistics.median(speeds["this"]) / statistics.median(speeds["other"])
                print(
                    f"{case} {learner} -np {ranks}:  {spread(speeds['other'])} -> {spread(speeds['this'])}  {ratio:.2f}"
                )
                table[f"{case} {learner} {ranks} {asked.launcher}"] = {**speeds, "ratio": ratio}
                if asked.output:
                    asked.output.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
