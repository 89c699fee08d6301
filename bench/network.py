#!/usr/bin/env python
"""Measures two ranks on two hosts over networks of different delay, under Gloo and under MPI.

The hosts and the network are namespaces on this machine, which only root can make.

.venv/bin/python bench/network.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from parts.jobs import QUIET, environment, print_machine, speed, spread

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests" / "launch"), str(ROOT / "tests" / "parallel")]

from hosts import Hosts, Link, running_hosts  # noqa: E402 it lies beside the tests that need it as well
from launching import read_metrics  # noqa: E402

NETWORKS = {
    "this machine's own speed": None,
    "100 Mbit/s, 1 ms each way": Link(1.0, 100.0),
    "100 Mbit/s, 10 ms each way": Link(10.0, 100.0),
}
CASES = {
    "CartPole, MLP 64-64, an update per 16 env steps": ("--num-envs", "16", "--train-period", "16"),
    "CartPole, MLP 64-64, 16 updates per 256 env steps": ("--num-envs", "256", "--train-period", "16"),
}
SECONDS_PER_RUN = 240.0


def train(hosts: Hosts, controller: str, arguments: tuple[str, ...], env_steps: int) -> tuple[float, float]:
    """Returns env steps per second and the median microseconds of an iteration's sums, at steady state."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        places = ",".join(f"{node.name}:1" for node in hosts.nodes)
        lengths = ("--total-env-steps", str(env_steps), "--log-period", str(env_steps // 5))
        where = ("--progress", "off", "--name", "bench", "--runs-dir", folder)
        command: list[str | Path] = [ROOT / "launch" / "hosts.sh", f"--{controller}", "-H", places, "--"]
        job = subprocess.run(
            ["taskset", "-c", "0", *hosts.nodes[0].command(*command, *QUIET, *arguments, *lengths, *where)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS_PER_RUN,
            check=False,
        )
        if job.returncode:
            raise RuntimeError(f"{command}:\n{job.stdout[-2000:]}{job.stderr[-2000:]}")
        records = read_metrics(next(Path(folder).glob("*/bench")), "training")
    sums = [record["allreduce_microseconds_median"] for record in records[2:]]
    return speed(records), statistics.median(sums)


def give_each_a_core(hosts: Hosts) -> None:
    """Has each host's processes, and those that they will start, keep to a core of their own."""
    for core, node in enumerate(hosts.nodes):
        for pid in node.processes():
            os.sched_setaffinity(pid, {core})


def main() -> None:
    """Measures all networks and both controllers in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--env-steps", type=int, default=8_000)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    print_machine()
    for network in options.networks:
        link = NETWORKS[network]
        print(f"\n{network}")
        with tempfile.TemporaryDirectory(prefix="hosts-") as folder, running_hosts(Path(folder), 2, link) as hosts:
            give_each_a_core(hosts)
            for case, arguments in CASES.items():
                for controller in ("gloo", "mpi"):
                    runs = [train(hosts, controller, arguments, options.env_steps) for _ in range(options.repetitions)]
                    speeds, sums = [run[0] for run in runs], statistics.median(run[1] for run in runs)
                    result = f"{spread(speeds)} env steps/s, an iteration's sums take {sums:,.0f} us"
                    print(f"  {case}, {controller}: {result}", flush=True)


if __name__ == "__main__":
    main()
