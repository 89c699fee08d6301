#!/usr/bin/env python
"""Compares the strategies by which ranks learn together: speed, staleness, learning curves, and a model of more ranks.

Each run becomes one line of bench/results/strategies.jsonl. Runs that are there already are not repeated, so an
interrupted measurement continues where it was. The networks with a delay are namespaces, which only root can make.

    .venv/bin/python bench/strategies.py --plot docs/strategies.png
    .venv/bin/python bench/strategies.py --strategies allreduce local-16 --workers 2 --conditions here --env-steps 5000
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from parts.apart import hosts_apart, run_on
from parts.jobs import ROOT, environment, finished_run, launcher, print_machine
from parts.own_work import own_work
from parts.slowing import slowed
from parts.strategy_cases import CONDITIONS, SPEEDS, STRATEGIES, Key, Strategy, append, read
from parts.strategy_model import Work
from parts.strategy_report import draw, predict, report
from scaling import CNN, MLP, Setting, parts_of, share

sys.path.append(str(ROOT / "tests" / "parallel"))

from launching import Launch, read_metrics

RESULTS = Path(__file__).parent / "results" / "strategies.jsonl"
WORKERS = (2, 4)
SECONDS_PER_RUN = 7_200.0


def measure(key: Key, path: Path) -> None:
    """Runs one job and appends its line."""
    name, workers, condition, env_steps, seed = key
    strategy, place = STRATEGIES[name], CONDITIONS[condition]
    arguments = (
        *("--preset", "cartpole", "--total-env-steps", str(env_steps), "--seed", str(seed)),
        *("--log-period", str(max(1, env_steps // 50)), "--evaluation-period", str(max(1, env_steps // 20))),
        *("--checkpoint-period", "1000000000", "--final-evaluation-episodes", "1", *strategy.flags),
    )
    ranks = workers + strategy.servers
    if place.apart:
        with hosts_apart(ranks, place.link) as hosts:
            records = run_on(hosts, "mpi", *arguments, seconds=SECONDS_PER_RUN)
    else:
        records = run_here(ranks, arguments, workers - 1, place.slow_share)
    training = [record for record in records if record["kind"] == "training"]
    learning = [record for record in training if record["learner_steps"] > 0]
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    append(
        path,
        {
            **{"kind": "run", "strategy": name, "workers": workers, "condition": condition, "env_steps": env_steps},
            **{"seed": seed, "commit": commit()},
            **{field: round(float(np.median([r[field] for r in learning[1:]])), 1) for field in SPEEDS},
            "staleness": staleness(strategy, learning),
            "curve": [[round(r["seconds"], 2), r["env_steps"], round(r["mean_return"], 1)] for r in evaluations],
        },
    )


def run_here(ranks: int, arguments: tuple[str, ...], worker: int, slow_share: float) -> list[dict[str, Any]]:
    """Runs train.py on this machine and returns its records; one worker may run for a share of its time only."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        words = [*launcher(ranks), sys.executable, str(ROOT / "train.py"), *arguments]
        words += ["--progress", "off", "--name", "bench", "--runs-dir", folder]
        job = Launch(words, environment())
        try:
            if slow_share < 1.0:
                run_directory = Path(folder)
                job.wait_until(lambda: any(run_directory.glob("*/bench/metrics.jsonl")), what="it logged")
                with slowed(job.rank_pid(worker), slow_share):
                    outcome = job.finish(SECONDS_PER_RUN)
            else:
                outcome = job.finish(SECONDS_PER_RUN)
            if outcome.code:
                raise RuntimeError(f"{' '.join(words)}:\n{outcome.output[-3000:]}")
            return read_metrics(next(Path(folder).glob("*/bench")))
        finally:
            job.end()


def staleness(strategy: Strategy, training: list[dict[str, Any]]) -> dict[str, float]:
    """Returns how many updates of the others a gradient's weights lack, as the records say or as the strategy fixes it.

    With local, update n since the last average lacks n of each other worker; with allreduce and ps-sync none is lacked.
    """
    names = sorted({name for record in training for name in record if name.startswith("staleness")})
    if names:
        values = {name: [r[name] for r in training if r.get(name) is not None] for name in names}
        return {name: round(float(np.mean(numbers)), 3) for name, numbers in values.items() if numbers}
    return {"staleness_mean": (strategy.period - 1) / 2, "staleness_max": strategy.period - 1}


def measure_parts(setting: Setting, path: Path) -> None:
    """Measures one worker's own work and appends its line."""
    updates, arguments = share(setting, 1)
    with finished_run(launcher(1, "alone"), *arguments, "--profile") as (records, directory):
        parts = parts_of(records, updates)
        own = own_work(next(directory.rglob("rank-*.trace.json")), updates).sum(axis=1)
    work = Work(
        *parts,
        spread=float(np.percentile(own, 84) / np.median(own) - 1.0),  # one standard deviation, without rare pauses
        updates=updates,
        num_envs=setting.num_envs,
        size=4.0 * setting.floats,
    )
    append(path, {"kind": "parts", "setting": setting.name, "commit": commit(), "work": dataclasses.asdict(work)})


def commit() -> str:
    """Returns this checkout's commit."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def wanted(arguments: argparse.Namespace) -> Iterable[Key]:
    """Yields the runs that are asked for, seed by seed."""
    for seed in range(arguments.repetitions):
        for workers in arguments.workers:
            for condition in arguments.conditions:
                for strategy in arguments.strategies:
                    yield strategy, workers, condition, arguments.env_steps, seed


def main() -> None:
    """Measures what is missing, then reports, predicts and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="seeds of each case")
    parser.add_argument("--strategies", nargs="*", choices=STRATEGIES, default=list(STRATEGIES), metavar="STRATEGY")
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS), metavar="CONDITION")
    parser.add_argument("--env-steps", type=int, default=50_000, help="length of a run")
    parser.add_argument("--settings", nargs="*", choices=["MLP", "CNN"], default=["MLP", "CNN"], help="of the model")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the lines")
    parser.add_argument("--plot", type=Path, help="the picture to write")
    arguments = parser.parse_args()
    print_machine()
    for setting in ({"MLP": MLP, "CNN": CNN}[name] for name in arguments.settings):
        if setting.name not in read(arguments.results)[1]:
            measure_parts(setting, arguments.results)
    for key in wanted(arguments):
        if key not in read(arguments.results)[0]:
            measure(key, arguments.results)
            print(f"{key}: done", flush=True)
    runs, works = read(arguments.results)
    report(runs)
    for setting_name, work in works.items():
        predict(setting_name, work)
    if arguments.plot and runs:
        draw(runs, works, arguments.plot)


if __name__ == "__main__":
    main()
