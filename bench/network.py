#!/usr/bin/env python
"""Measures two ranks on two hosts over networks of different delay, under Gloo and under MPI.

The hosts and the network are namespaces on this machine, which only root can make.

.venv/bin/python bench/network.py
"""

from __future__ import annotations

import argparse
import statistics

from parts.apart import Hosts, Link, hosts_apart, run_on
from parts.jobs import QUIET, print_machine, speed, spread

NETWORKS = {
    "this machine's own speed": None,
    "100 Mbit/s, 1 ms each way": Link(1.0, 100.0),
    "100 Mbit/s, 10 ms each way": Link(10.0, 100.0),
}
CASES = {
    "CartPole, MLP 64-64, an update per 16 env steps": ("--preset", "dqn", "--num-envs", "16", "--train-period", "16"),
    "CartPole, MLP 64-64, 16 updates per 256 env steps": (
        "--preset",
        "dqn",
        "--num-envs",
        "256",
        "--train-period",
        "16",
    ),
}
SECONDS_PER_RUN = 240.0


def train(hosts: Hosts, controller: str, arguments: tuple[str, ...], env_steps: int) -> tuple[float, float]:
    """Returns env steps per second and the median microseconds of an iteration's sums, at steady state."""
    lengths = ("--total-env-steps", str(env_steps), "--log-period", str(env_steps // 5))
    records = run_on(hosts, controller, *QUIET, *arguments, *lengths, seconds=SECONDS_PER_RUN)
    training = [record for record in records if record["kind"] == "training"]
    sums = [record["allreduce_microseconds_median"] for record in training[2:]]
    return speed(training), statistics.median(sums)


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
        with hosts_apart(2, link) as hosts:
            for case, arguments in CASES.items():
                for controller in ("gloo", "mpi"):
                    runs = [train(hosts, controller, arguments, options.env_steps) for _ in range(options.repetitions)]
                    speeds, sums = [run[0] for run in runs], statistics.median(run[1] for run in runs)
                    result = f"{spread(speeds)} env steps/s, an iteration's sums take {sums:,.0f} us"
                    print(f"  {case}, {controller}: {result}", flush=True)


if __name__ == "__main__":
    main()
