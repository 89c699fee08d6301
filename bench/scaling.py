#!/usr/bin/env python
"""Predicts 1 to 1,024 ranks from parts measured here, and checks itself against runs here and over slowed links.

.venv/bin/python bench/scaling.py --plot scaling.png        (as root: it makes two network namespaces)
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from parts.jobs import (
    CARTPOLE,
    NATURE_CNN,
    QUIET,
    environment,
    finished_run,
    launcher,
    print_machine,
    run,
    speed,
    train,
    verdict,
)
from parts.link_model import LINKS, JobModel, Line, fit_line
from parts.own_work import iteration_seconds, own_work
from parts.two_hosts import two_hosts

T = TypeVar("T")

PROGRAM = Path(__file__).parent / "programs" / "allreduce_rank.py"
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
RANKS_FITTED = (1, 2, 4, 8, 16)
RANKS_HERE = (2, 4)
CORES = os.cpu_count() or 1
DELAYS_MILLISECONDS = (0.0, 1.0, 5.0)
FEW_FLOATS = 256
"""Of a sum whose time is a link's latency."""
PUBLISHED = (
    "published: synchronous DQN on 8 GPUs 3.2 to 5.9 x (Stooke & Abbeel 2018); "
    "DD-PPO on 128 GPUs 107 x (Wijmans et al. 2020)"
)


@dataclass(frozen=True)
class Setting:
    """What is trained; the first four numbers are per iteration or update, over all ranks."""

    name: str
    arguments: tuple[str, ...]
    num_envs: int
    batch: int
    updates: int
    floats: int  # of a sum
    env_steps: int  # of a run


MLP = Setting(
    "CartPole, MLP 120-84, batch 128, 160 environments",
    (*CARTPOLE, "--threads-per-rank", "1"),
    *(160, 128, 16, 5 * 120 + 121 * 84 + 85 * 2 + 8),
    env_steps=40_000,
)
CNN = Setting(
    "Pong, Nature CNN, batch 32, 16 environments",
    (*NATURE_CNN, "--threads-per-rank", "1"),
    *(16, 32, 4, 1_687_206 + 8),
    env_steps=1_700,
)


class Parts(NamedTuple):
    """Seconds of a rank's own work."""

    collect: float  # of an iteration, bookkeeping included
    gradient: float  # of an update, sampling included
    apply: float  # of an update


def parts_of(records: list[dict[str, Any]], updates: float) -> Parts:
    """Returns what a job of one rank has measured."""
    training = [record for record in records if record["kind"] == "training"]
    learning = [record for record in training[1:] if record["gradient_microseconds_median"] > 0.0][1:]
    middle = {
        name: statistics.median(record[f"{name}_microseconds_median"] for record in learning) / 1e6
        for name in ("collect", "bookkeeping", "sample", "transfer", "gradient", "apply")
    }
    gradient = (middle["sample"] + middle["transfer"] + middle["gradient"]) / updates
    return Parts(middle["collect"] + middle["bookkeeping"], gradient, middle["apply"] / updates)


def share(setting: Setting, ranks: int) -> tuple[int, tuple[str, ...]]:
    """Returns the learner steps per iteration, and the arguments, of a job as large as a rank's share."""
    envs, batch = setting.num_envs // ranks, setting.batch // ranks
    period = max(1, round(envs / setting.updates))
    amounts = ("--num-envs", str(envs), "--global-batch-size", str(batch), "--train-period", str(period))
    steps = 600 * envs if setting.floats < 1e6 else 500 + max(60 * envs, 240)
    lengths = ("--total-env-steps", str(steps), "--log-period", str(steps // 8))
    return envs // period, (*QUIET, *setting.arguments, *amounts, *lengths)


def on_each_core(count: int, measure: Callable[[list[str]], T]) -> list[T]:
    """Returns what jobs measure that run at the same time, each on a core, or several where there are too few.

    Cores that share a processor slow one another down, and so do ranks that share a core.
    """
    pinned = [["taskset", "-c", str(job % CORES)] for job in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(measure, pinned))


def measure_parts(setting: Setting, ranks: int) -> Parts:
    """Measures a rank's share on every core."""
    updates, arguments = share(setting, ranks)
    jobs = on_each_core(CORES, lambda pinned: parts_of(run(pinned, *arguments), updates))
    return Parts(*map(statistics.mean, zip(*jobs, strict=True)))


def job_model(setting: Setting) -> JobModel:
    """Fits lines to one rank's parts with several shares, one rank per core."""
    measured = {ranks: measure_parts(setting, ranks) for ranks in RANKS_FITTED}
    collect = {setting.num_envs / ranks: own.collect for ranks, own in measured.items()}
    gradient = {setting.batch / ranks: own.gradient for ranks, own in measured.items()}
    apply = statistics.median(own.apply for own in measured.values())
    return JobModel(fit_line(collect), fit_line(gradient), apply, 4.0 * setting.floats)


def exchange_seconds(command: list[str], floats: int, *, several_hosts: bool) -> float:
    """Measures one sum over the ranks that this command starts."""
    rounds = "200" if floats < 1e6 else "20"
    words = [*command, sys.executable, str(PROGRAM), "bare", str(floats), rounds, "5"]
    variables = {"PYTHONPATH": str(PROGRAM.parents[2])}
    if several_hosts:
        variables["SEVERAL_HOSTS"] = "1"
    output = subprocess.run(words, env=environment(**variables), capture_output=True, text=True, check=True).stdout
    line = next(line for line in output.splitlines() if '"alone"' in line)
    return statistics.median(json.loads(line)["alone"]) / 1e6


def measure_own_work(setting: Setting, ranks: int) -> list[np.ndarray]:
    """Measures what each of several ranks does between two sums, by jobs of one rank that run at the same time."""
    updates, arguments = share(setting, ranks)

    def one_job(pinned: list[str]) -> np.ndarray:
        with finished_run(pinned, *arguments, "--profile") as (_, directory):
            return own_work(next(directory.rglob("rank-*.trace.json")), updates)

    return on_each_core(ranks, one_job)


def here(setting: Setting) -> Iterator[tuple[str, float, float]]:
    """Yields name, predicted and measured env steps per second of jobs on this machine."""
    for ranks in RANKS_HERE:
        work = measure_own_work(setting, ranks)
        exchange = exchange_seconds(launcher(ranks), setting.floats, several_hosts=False)
        predicted = setting.num_envs / iteration_seconds(work, exchange, crowded=ranks > CORES)
        yield f"{setting.name}, -np {ranks}", predicted, measure(setting, launcher(ranks), setting.env_steps)


def over_links(setting: Setting) -> Iterator[tuple[str, float, float]]:
    """Yields the same of two ranks on two hosts, over links whose added latency is measured with a short sum."""
    for delay in DELAYS_MILLISECONDS:
        work = measure_own_work(setting, 2)
        with two_hosts(delay) as command:
            latency = exchange_seconds(command, FEW_FLOATS, several_hosts=True)
            if not delay:
                undelayed, fastest = exchange_seconds(command, setting.floats, several_hosts=True), latency
            predicted = setting.num_envs / iteration_seconds(work, undelayed + latency - fastest, crowded=False)
            env_steps = setting.env_steps // 2 if delay else setting.env_steps
            yield f"two hosts, {delay:g} ms added", predicted, measure(setting, command, env_steps)


def measure(setting: Setting, command: list[str], env_steps: int) -> float:
    """Returns a job's env steps per second; a log line, which no prediction knows of, takes a dozen sums' time."""
    return speed(train(command, *setting.arguments, env_steps=env_steps, log_period=env_steps // 6))


def check(repetitions: int) -> None:
    """Compares predictions with runs; each repetition measures the parts again, as a shared machine's speed changes."""
    found: dict[str, list[tuple[float, float]]] = {}
    print()
    for repetition in range(1, repetitions + 1):
        for name, predicted, measured in itertools.chain(here(MLP), over_links(MLP), here(CNN)):
            print(f"repetition {repetition}, {name}: predicted {predicted:,.0f}, measured {measured:,.0f}", flush=True)
            found.setdefault(name, []).append((predicted, measured))
    print("\nprediction against measurement, env steps/s, medians; the error is the median of the repetitions' errors")
    for name, pairs in found.items():
        predicted, measured = (statistics.median(values) for values in zip(*pairs, strict=True))
        error = statistics.median(prediction / measurement for prediction, measurement in pairs) - 1
        print(
            f"  {name:<58} predicted {predicted:>8,.0f}  measured {measured:>8,.0f}  error {100 * error:+.0f} %"
            f"  {verdict(abs(error) <= 0.15)}"
        )


def predict(setting: Setting, axes: Any) -> None:
    """Prints and draws the speed-up over one rank, strong (same global amounts) and weak (amounts grow with W)."""
    model, num_envs, batch, updates = job_model(setting), setting.num_envs, setting.batch, setting.updates
    print(f"\n{setting.name}: {describe(model)}")
    for scaling in ("strong", "weak"):
        print(f"  {scaling} scaling, speed-up over one rank\n  {'ranks':<22}{''.join(f'{w:>7}' for w in RANKS)}")
        for number, link in enumerate(LINKS):
            one = model.speed(1, num_envs, batch, updates, link)
            grown = [1 if scaling == "strong" else ranks for ranks in RANKS]
            ups = [
                model.speed(w, num_envs * g, batch * g, updates, link) / one for w, g in zip(RANKS, grown, strict=True)
            ]
            print(f"  {link.name:<22}{''.join(f'{up:>7.1f}' for up in ups)}")
            axes.plot(RANKS, ups, f"C{number}{'-' if scaling == 'weak' else '--'}", label=f"{link.name}, {scaling}")
    axes.plot(RANKS, RANKS, color="grey", linewidth=0.7)
    axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="speed-up over one rank", title=setting.name)
    axes.legend(fontsize=6)


def describe(model: JobModel) -> str:
    """Formats a model's parts in microseconds."""

    def line(part: Line, unit: str) -> str:
        return f"{1e6 * part.fixed:.0f} + {1e6 * part.slope:.2f} per {unit}"

    return (
        f"microseconds: collect {line(model.collect, 'environment')}, gradient {line(model.gradient, 'row')}, "
        f"apply {1e6 * model.apply:.0f}; {model.size / 1e6:.3g} MB per sum"
    )


def main() -> None:
    """Measures, predicts, checks."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    print_machine()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    predict(MLP, left)
    predict(CNN, right)
    print("  " + PUBLISHED)
    if arguments.plot:
        figure.tight_layout()
        figure.savefig(arguments.plot, dpi=110)
    check(arguments.repetitions)


if __name__ == "__main__":
    main()
