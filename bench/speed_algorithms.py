#!/usr/bin/env python
"""Measures updates per second of every algorithm next to PyTorch libraries', on one core.

An update draws a batch from a full replay, makes a gradient step, and sets priorities where the replay has them; no
environment is stepped. Ours are built as train.py builds them. Every process is fresh and takes its turn.

Two are not alike: the action of IQN's target is chosen with 32 fractions here (Dabney et al. 2018, K), and with 8 in
Tianshou; priorities of plain PyTorch are summed over all rows, which is fast for the few that there are.

    bench/peers/install.sh                                  once: the peers' environment, .bench/peers
    .venv/bin/python bench/speed_algorithms.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from comparison.processes import environment
from comparison.update_timing import (
    ATOMS,
    CASES,
    FRACTIONS,
    GAMMA,
    LEARNING_RATE,
    QUANTILES,
    UPDATES_PER_CALL,
    columns,
    measure,
)
from parts.jobs import ROOT, print_machine, verdict

OURS = "hvd_dqn"
ALGORITHMS: dict[str, dict[str, Any]] = {
    "dqn": {"loss": "huber"},
    "double": {"loss": "huber", "double": True},
    "munchausen": {"algorithm": "munchausen", "loss": "huber"},
    "c51": {"algorithm": "c51", "atoms": ATOMS},
    "hl-gauss": {"algorithm": "hl-gauss", "atoms": ATOMS},
    "qr": {"algorithm": "qr", "quantiles": QUANTILES},
    "iqn": {"algorithm": "iqn", "quantiles": FRACTIONS},
    "munchausen-iqn": {"algorithm": "munchausen-iqn", "quantiles": FRACTIONS},
    "rainbow": {
        "algorithm": "c51",
        "atoms": ATOMS,
        "double": True,
        "dueling": True,
        "noisy": True,
        "replay": "prioritized",
        "n_step": 3,
    },
}
"""Our settings of each; the rest is the same in all."""
PEERS = {
    "Stable-Baselines3": ("dqn", "qr"),
    "Tianshou": ("dqn", "double", "c51", "qr", "iqn", "rainbow"),
    "plain PyTorch": ("c51", "rainbow"),
}
"""Libraries and the algorithms that each has; QR-DQN is sb3-contrib's, plain PyTorch is CleanRL's."""
BARS = {"mlp": 1.5, "minatar": 1.5, "cnn": 1.0}
"""Ours over the fastest peer's, at least."""


def run_own(algorithm: str, network: str, warm_seconds: float, seconds: float) -> None:
    """Measures ours in this process."""
    from hvd_dqn.config import Config, replace
    from hvd_dqn.distributed.communicator import SingleCommunicator
    from hvd_dqn.distributed.runtime import Runtime
    from hvd_dqn.envs.spaces import Spaces
    from hvd_dqn.registry import REPLAYS, load
    from hvd_dqn.replay.prioritized import importance_weights
    from hvd_dqn.run.profile import IterationProfile
    from hvd_dqn.training.agent import build_agent
    from hvd_dqn.training.parts import configured
    from hvd_dqn.training.signals import Signals
    from hvd_dqn.transition import Transition

    case, data = CASES[network], columns(CASES[network])
    flat = {
        **{"network": network, "hidden_sizes": case.hidden, "global_batch_size": case.batch},
        **{"learning_rate": LEARNING_RATE, "gamma": GAMMA, "threads_per_rank": 1},
    }
    config = replace(Config(), flat | ALGORITHMS[algorithm])
    spaces = Spaces(case.shape, np.dtype(case.dtype), 0, case.actions)
    learner = build_agent(config, Runtime(SingleCommunicator(), 1, "CPU", False), spaces, IterationProfile()).learner
    replay = configured(
        load(REPLAYS, config.replay.replay),
        config,
        capacity=len(data["act"]),
        form=spaces.transition_form,
        rng=np.random.default_rng(0),
    )
    discount = np.float32(GAMMA**config.algorithm.n_step) * ~data["done"]
    replay.add(Transition(data["obs"], data["act"].astype(np.int32), data["rew"], discount, data["next_obs"]))
    signals, ones = np.zeros(len(Signals()), np.float32), np.ones((UPDATES_PER_CALL, case.batch), np.float32)

    def update() -> None:
        sample = replay.sample(UPDATES_PER_CALL, case.batch)
        weights = ones
        if replay.prioritized:
            weights = importance_weights(sample.probabilities, 1.0, config.replay.importance_exponent)
        report = learner.learn(sample.transitions, weights, signals)
        assert report.steps == UPDATES_PER_CALL
        replay.update_priorities(sample.indices, report.priorities)

    measure(update, warm_seconds, seconds)


def run(name: str, algorithm: str, network: str, arguments: argparse.Namespace) -> float | None:
    """Measures one contestant in a process of its own; returns updates per second, None if it failed."""
    times = [str(arguments.warm_seconds), str(arguments.seconds)]
    words = ["taskset", "-c", str(arguments.core)]
    if name == OURS:
        words += [sys.executable, __file__, "--own", algorithm, network, *times]
    else:
        program = str(ROOT / "bench" / "peers" / "updates.py")
        words += [str(arguments.peers_python), program, name, algorithm, network, *times]
    variables = environment() | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=variables)
    found = [line for line in ended.stdout.splitlines() if line.startswith('{"updates_per_second"')]
    if not found:
        print(f"{name}, {algorithm}, {network} failed: {ended.stderr[-2000:]}", file=sys.stderr, flush=True)
        return None
    speed: float = json.loads(found[0])["updates_per_second"]
    print(f"{network}, {algorithm}: {name} {speed:,.0f}", file=sys.stderr, flush=True)
    return speed


def main() -> None:
    """Measures all contestants in turn and prints a table of medians per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES), metavar="NETWORK")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS), metavar="NAME")
    parser.add_argument("--repetitions", type=int, default=1, help="fresh processes of each")
    parser.add_argument("--seconds", type=float, default=4.0, help="processor time that counts")
    parser.add_argument("--warm-seconds", type=float, default=2.0, help="processor time before it")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--peers-python", type=Path, default=ROOT / ".bench" / "peers" / "bin" / "python")
    parser.add_argument("--own", nargs=4, metavar=("ALGORITHM", "NETWORK", "WARM", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.own:
        algorithm, network, warm_seconds, seconds = arguments.own
        run_own(algorithm, network, float(warm_seconds), float(seconds))
        return
    print_machine()
    for network in arguments.networks:
        medians = {algorithm: _medians(algorithm, network, arguments) for algorithm in arguments.algorithms}
        print(_table(network, medians), flush=True)


def _medians(algorithm: str, network: str, arguments: argparse.Namespace) -> dict[str, float]:
    names = [OURS, *(peer for peer, has in PEERS.items() if algorithm in has)]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.repetitions):
        for name in names:
            speed = run(name, algorithm, network, arguments)
            found[name] += [] if speed is None else [speed]
    return {name: statistics.median(speeds) for name, speeds in found.items() if speeds}


def _table(network: str, medians: dict[str, dict[str, float]]) -> str:
    """Returns a Markdown table of updates per second; the last columns hold ours against the fastest peer."""
    case = CASES[network]
    lines = [
        f"\n## {network}, batch {case.batch}: updates per second",
        f"| algorithm | {OURS} | {' | '.join(PEERS)} | of the fastest | at least {BARS[network]} |",
        "|---|" + "---|" * (len(PEERS) + 3),
    ]
    for algorithm, speeds in medians.items():
        peers = [speed for name, speed in speeds.items() if name != OURS]
        ratio = speeds[OURS] / max(peers) if peers and OURS in speeds else None
        cells = [f"{speeds[name]:,.0f}" if name in speeds else "" for name in (OURS, *PEERS)]
        outcome = ["", ""] if ratio is None else [f"{ratio:.2f}", verdict(ratio >= BARS[network])]
        lines.append(f"| {' | '.join([algorithm, *cells, *outcome])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
