#!/usr/bin/env python
"""Predicts 1 to 1,024 ranks from parts measured here, and checks itself against runs over slowed links.

.venv/bin/python bench/scaling.py --plot scaling.png        (as root: it makes two network namespaces)
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from parts.jobs import CARTPOLE, NATURE_CNN, environment, launcher, print_machine, speed, train, verdict
from parts.link_model import LINKS, JobModel, Line, fit_line
from parts.two_hosts import two_hosts

PROGRAM = Path(__file__).parent / "programs" / "allreduce_rank.py"
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
DELAYS_MILLISECONDS = (0.0, 1.0, 5.0)
PUBLISHED = (
    "published: synchronous DQN on 8 GPUs 3.2 to 5.9 x (Stooke & Abbeel 2018); "
    "DD-PPO on 128 GPUs 107 x (Wijmans et al. 2020)"
)


def parts(records: list[dict[str, Any]], updates: float) -> tuple[float, float, float]:
    """Returns seconds: collecting and bookkeeping of an iteration, gradient of an update, applying of an update."""
    middle = {
        name: statistics.median(record[f"{name}_microseconds_median"] for record in records[2:]) / 1e6
        for name in ("collect", "bookkeeping", "sample", "transfer", "gradient", "apply")
    }
    gradient = (middle["sample"] + middle["transfer"] + middle["gradient"]) / updates
    return middle["collect"] + middle["bookkeeping"], gradient, middle["apply"] / updates


def job_model(arguments: tuple[str, ...], num_envs: int, batch: int, updates: float, floats: int) -> JobModel:
    """Measures one rank with the shares of one, two and four ranks, and fits lines."""
    collect, gradient, applies = {}, {}, []
    for ranks in (1, 2, 4):
        own_envs, own_batch = num_envs // ranks, batch // ranks
        own = (*arguments, "--num-envs", str(own_envs), "--global-batch-size", str(own_batch))
        period, steps = max(1, round(own_envs / updates)), 600 * own_envs if floats < 1e6 else 60 * own_envs + 500
        records = train(
            launcher(1, "alone"), *own, "--train-period", str(period), env_steps=steps, log_period=steps // 8
        )
        collect[float(own_envs)], gradient[float(own_batch)], apply = parts(records, own_envs / period)
        applies.append(apply)
    return JobModel(fit_line(collect), fit_line(gradient), statistics.median(applies), 4.0 * floats)


def exchange_seconds(command: list[str], transport: str, floats: int) -> float:
    """Measures one sum over the ranks that this command starts, between pieces of work."""
    words = [*command, sys.executable, str(PROGRAM), "rounds", str(floats), "200", "5"]
    variables = {"TRANSPORT": transport, "HOROVOD_CYCLE_TIME": "1000", "PYTHONPATH": str(PROGRAM.parents[2])}
    if transport == "mpi":
        variables["SEVERAL_HOSTS"] = "1"
    output = subprocess.run(words, env=environment(**variables), capture_output=True, text=True, check=True).stdout
    line = next(line for line in output.splitlines() if '"alone"' in line)
    return statistics.median(json.loads(line)["with_work"]) / 1e6


def check(model: JobModel, floats: int, repetitions: int) -> None:
    """Compares predictions with runs: two and four ranks here, and two over a slow link."""
    print("\nprediction against measurement, CartPole setting, env steps/s")
    for ranks in (2, 4):
        exchange = exchange_seconds(launcher(ranks), "shared-memory", floats)
        crowding = max(1, ranks // 2)  # ranks that share this machine's two cores take turns
        predicted = 160 / (model.iteration(ranks, 160, 128, 16, 0.0) * crowding + 16 * exchange)
        compare(f"-np {ranks}", predicted, launcher(ranks), 40_000, repetitions)
    for delay in DELAYS_MILLISECONDS:
        with two_hosts(delay) as command:
            if not delay:
                undelayed = exchange_seconds(command, "mpi", floats)
            exchange = undelayed + delay / 1e3  # two ranks exchange at the same time: one delay per sum
            predicted = 160 / model.iteration(2, 160, 128, 16, exchange)
            compare(
                f"-np 2, two hosts, {delay:g} ms added", predicted, command, 8_000 if delay else 40_000, repetitions
            )


def compare(name: str, predicted: float, command: list[str], env_steps: int, repetitions: int) -> None:
    """Measures a job and prints its speed beside the predicted one."""
    job = (*CARTPOLE, "--threads-per-rank", "1")
    measured = statistics.median(
        speed(train(command, *job, env_steps=env_steps, log_period=env_steps // 8)) for _ in range(repetitions)
    )
    error = predicted / measured - 1
    print(
        f"  {name:<32} predicted {predicted:>8,.0f}  measured {measured:>8,.0f}  error {100 * error:+.0f} %"
        f"  {verdict(abs(error) <= 0.15)}",
        flush=True,
    )


def predict(name: str, model: JobModel, num_envs: int, batch: int, updates: float, axes: Any) -> None:
    """Prints and draws the speed-up over one rank, strong (same global amounts) and weak (amounts grow with W)."""
    print(f"\n{name}: {describe(model)}")
    for scaling in ("strong", "weak"):
        print(f"  {scaling} scaling, speed-up over one rank\n  {'ranks':<22}{''.join(f'{w:>7}' for w in RANKS)}")
        for link in LINKS:
            one = model.speed(1, num_envs, batch, updates, link)
            grown = [1 if scaling == "strong" else ranks for ranks in RANKS]
            ups = [
                model.speed(w, num_envs * g, batch * g, updates, link) / one for w, g in zip(RANKS, grown, strict=True)
            ]
            print(f"  {link.name:<22}{''.join(f'{up:>7.1f}' for up in ups)}")
            axes.plot(RANKS, ups, "-" if scaling == "weak" else "--", label=f"{link.name}, {scaling}")
    axes.plot(RANKS, RANKS, color="grey", linewidth=0.7)
    axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="speed-up over one rank", title=name)
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
    floats = 4 * 120 + 120 + 120 * 84 + 84 + 84 * 2 + 2 + 6
    mlp = job_model(CARTPOLE, 160, 128, 16, floats)
    cnn = job_model(NATURE_CNN, 16, 32, 4, 1_687_206 + 6)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    predict("CartPole, MLP 120-84, batch 128, 160 environments", mlp, 160, 128, 16, left)
    predict("Pong, Nature CNN, batch 32, 16 environments", cnn, 16, 32, 4, right)
    print("  " + PUBLISHED)
    if arguments.plot:
        figure.tight_layout()
        figure.savefig(arguments.plot, dpi=110)
    check(mlp, floats, arguments.repetitions)


if __name__ == "__main__":
    main()
