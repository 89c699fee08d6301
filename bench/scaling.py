#!/usr/bin/env python
"""Predicts 1 to 1,024 ranks from parts measured here, and checks itself against runs over slowed links.

.venv/bin/python bench/scaling.py --plot scaling.png        (as root: it makes a network namespace of its own)
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from parts.jobs import BIN, CARTPOLE, NATURE_CNN, environment, launcher, print_machine, speed, train, verdict
from parts.link_model import LINKS, JobModel, Line, fit_line

PROGRAM = Path(__file__).parent / "programs" / "allreduce_rank.py"
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
DELAYS_MILLISECONDS = (0.0, 0.2, 1.0, 5.0)
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


def exchange_seconds(ranks: int, floats: int, transport: str, before: list[str], extra: list[str]) -> float:
    """Measures one sum over the ranks between pieces of work."""
    command = [*before, *launcher(ranks), *extra, sys.executable, str(PROGRAM), "rounds", str(floats), "200", "5"]
    variables = {"TRANSPORT": transport, "HOROVOD_CYCLE_TIME": "1000", "PYTHONPATH": str(PROGRAM.parents[2])}
    output = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=True).stdout
    line = next(line for line in output.splitlines() if '"alone"' in line)
    return statistics.median(json.loads(line)["with_work"]) / 1e6


def slowed(delay: float) -> tuple[list[str], list[str]]:
    """Returns the words that put a job into a network whose only link delays each packet, and make MPI use it."""
    rules = f"ip link set lo up; tc qdisc add dev lo root netem delay {delay}ms; " if delay else "ip link set lo up; "
    inside = ["unshare", "-n", "sh", "-c", rules + 'exec "$@"', "sh"]
    over_tcp = ["pml=ob1", "btl=tcp,self", "btl_tcp_if_include=lo", "oob_tcp_if_include=lo"]
    return inside, [word for setting in over_tcp for word in ("--mca", *setting.split("="))]


def check(model: JobModel, floats: int, repetitions: int) -> None:
    """Compares predictions with runs: two and four ranks here, and two over a slowed link."""
    print("\nprediction against measurement, CartPole setting, env steps/s")
    cases: list[tuple[str, int, list[str], list[str], float]] = [("-np 2", 2, [], [], 0.0), ("-np 4", 4, [], [], 0.0)]
    for delay in DELAYS_MILLISECONDS:
        cases.append((f"-np 2, TCP, {delay:g} ms added", 2, *slowed(delay), delay / 1e3))
    tcp = None
    for name, ranks, inside, extra, delay in cases:
        transport = "mpi" if inside else "shared-memory"
        if not delay:
            exchange = tcp = exchange_seconds(ranks, floats, transport, inside, extra)
        else:
            exchange = (tcp or 0.0) + delay  # two ranks exchange at the same time: one delay per sum
        crowding = max(1.0, ranks / 2)  # ranks that share this machine's two cores take turns
        seconds = model.iteration(ranks, 160, 128, 16, 0.0) * crowding + 16 * exchange
        steps = 40_000 if delay < 1e-3 else 16_000
        command = [*inside, str(BIN / "mpirun"), *launcher(ranks)[1:], *extra]
        job = (*CARTPOLE, "--transport", transport)
        measured = statistics.median(
            speed(train(command, *job, env_steps=steps, log_period=steps // 8)) for _ in range(repetitions)
        )
        error = 160 / seconds / measured - 1
        print(
            f"  {name:<28} predicted {160 / seconds:>8,.0f}  measured {measured:>8,.0f}  error {100 * error:+.0f} %"
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
