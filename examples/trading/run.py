#!/usr/bin/env python
"""Trains on generated series with known answers, then walks forward over real prices: `python examples/trading/run.py`.

Each run becomes one line of results.jsonl. Runs that are there already are not repeated, and a run that was interrupted
is resumed, so the same command continues where it was. At the end the tables are printed and the figure is drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import figure
import known
from market import Trading
from play import play
from prices import licence, load
from verdict import Verdict, judge, table
from walk_forward import PLANS, Span, Tested, decode, encode, windows

import hvd_dqn

FOLDER = Path(__file__).parent
KNOWN = "known"
SETTINGS: dict[str, dict[str, Any]] = {"base": {}, "patient": {"gamma": 0.98}}
"""Tried on real prices, as changes of settings.toml; the deflated Sharpe ratio counts them."""
ON_REAL_PRICES = {
    **{"total_env_steps": 20_000, "learning_starts": 2_000, "epsilon_decay_env_steps": 10_000},
    "final_evaluation_episodes": 10,
}
"""Further changes: a training window has a few thousand bars. Chosen before any result on them."""


class Task(NamedTuple):
    """One run."""

    part: str
    """known, forex or stocks."""
    case: str
    """Generated series, or the setting."""
    window: int
    """Of the walk-forward; 0 for generated series."""
    seed: int

    def __str__(self) -> str:
        """Returns the name of the run directory."""
        return f"{self.part}-{self.case}-{self.window}-{self.seed}".replace(", ", "-").replace(" ", "-")


def tasks(parts: list[str], seeds: int, settings: list[str]) -> Iterator[Task]:
    """Yields all runs; those of one setting follow one another."""
    for part in parts:
        if part == KNOWN:
            yield from (Task(part, case, 0, seed) for case, seed in itertools.product(known.CASES, range(seeds)))
        else:
            count = len(windows(len(load(part).close), PLANS[part]))
            order = itertools.product(settings, range(count), range(seeds))
            yield from (Task(part, setting, number, seed) for setting, number, seed in order)


def trained(task: Task, env: str, arguments: dict[str, Any], runs_dir: str, env_steps: int | None) -> hvd_dqn.Run:
    """Trains one run, or resumes it."""
    changes = known.CASES[task.case].settings if task.part == KNOWN else {**ON_REAL_PRICES, **SETTINGS[task.case]}
    shorter = {"total_env_steps": env_steps} if env_steps else {}
    finished = []
    with contextlib.redirect_stdout(io.StringIO()):
        run = hvd_dqn.train(
            {"config": str(FOLDER / "settings.toml"), **changes, **shorter},
            env=f"{FOLDER / 'market.py'}:{env}",
            env_kwargs=arguments,
            seed=task.seed,
            name=str(task),
            runs_dir=runs_dir,
            resume="auto",
            progress="off",
            callbacks=[lambda record: finished.append(record["kind"])],
        )
    if "final_evaluation" not in finished:
        sys.exit(f"{task} was interrupted and is saved: the same command resumes it")
    return run


def result(task: Task, runs_dir: str, env_steps: int | None) -> dict[str, Any]:
    """Returns the line of results.jsonl of a run."""
    if task.part == KNOWN:
        arguments = known.CASES[task.case].arguments
        run = trained(task, "GeneratedTrading-v0", arguments, runs_dir, env_steps)
        return {**task._asdict(), **known.judge(task.case, run.policy)}
    plan = PLANS[task.part]
    window = windows(len(load(task.part).close), plan)[task.window]
    arguments = {
        **{"prices": task.part, "train": window.train, "short": plan.short},
        **{"fee": plan.fee, "half_spread": plan.half_spread},
    }
    run = trained(task, "Trading-v0", arguments, runs_dir, env_steps)

    def positions(span: Span) -> str:
        (played,) = play(run.policy, [Trading(**arguments, window=span, episode_bars=0)], [0])
        return encode(played.positions)

    return {**task._asdict(), "validation": positions(window.validate), "test": positions(window.test)}


def read(path: Path) -> dict[Task, dict[str, Any]]:
    """Returns the lines of results.jsonl by their runs."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {Task(*(line[field] for field in Task._fields)): line for line in lines}


def report(parts: list[str], asked: list[Task], found: dict[Task, dict[str, Any]], picture: Path | None) -> None:
    """Prints the tables, and draws the figure."""
    answers = [found[task] for task in asked if task.part == KNOWN]
    for line in answers:
        low, high = line["interval"]
        print(
            f"{line['case']}, seed {line['seed']}: {line['earned']:.2f} % per episode (95 %: {low:.2f} to {high:.2f}), "
            f"optimum {line['optimal']:.2f} %, mean |position| {line['mean_abs_position']:.3f}; must "
            f"{known.CASES[line['case']].must}: {'yes' if line['passes'] else 'NO'}"
        )
    verdicts: dict[str, Verdict] = {}
    for part in (own for own in parts if own != KNOWN):
        lines = [found[task] for task in asked if task.part == part]
        verdicts[part] = verdict = judge(
            part,
            [
                Tested(line["case"], line["window"], line["seed"], decode(line["validation"]), decode(line["test"]))
                for line in lines
            ],
        )
        print(f"\n{figure.TITLES[part]}. Data: {licence(part)}\n\n{table(verdict)}\n\n{words(verdict)}")
    if picture is not None:
        figure.draw(answers, verdicts, picture)
        print(f"\nwrote {picture}")


def words(verdict: Verdict) -> str:
    """Returns the intervals and the answer in words."""
    low, high = verdict.lead
    answer = "no" if high < 0 else "yes" if low > 0 else "not shown: the interval contains 0"
    return (
        f"median seed: Sharpe ratio of a year, 95 % from {verdict.interval[0]:+.2f} to {verdict.interval[1]:+.2f}; "
        f"deflated by {verdict.trials} settings: {verdict.deflated:.2f}; "
        f"random shifts in time that are as good: {100 * verdict.timing:.0f} %\n"
        f"log return of a year over buy and hold, 95 % from {low:+.1f} to {high:+.1f} %. "
        f"Does it beat buy and hold? {answer}"
    )


def main() -> None:
    """Trains what is missing and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=[KNOWN, *PLANS], default=[KNOWN, *PLANS])
    parser.add_argument("--seeds", type=int, default=5, help="of each run")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), help="on real prices")
    parser.add_argument("--env-steps", type=int, help="of each run, in place of those of settings.toml")
    parser.add_argument("--results", type=Path, default=FOLDER / "results.jsonl")
    parser.add_argument("--runs-dir", default="runs/trading")
    parser.add_argument("--figure", type=Path, help="PNG file to draw")
    arguments = parser.parse_args()
    asked = list(tasks(arguments.parts, arguments.seeds, arguments.settings))
    found = read(arguments.results)
    for number, task in enumerate(asked, 1):
        if task not in found:
            print(f"run {number} of {len(asked)}: {task}", flush=True)
            found[task] = result(task, arguments.runs_dir, arguments.env_steps)
            with arguments.results.open("a") as file:
                file.write(json.dumps(found[task]) + "\n")
    report(arguments.parts, asked, found, arguments.figure)


if __name__ == "__main__":
    main()
