#!/usr/bin/env python
"""Measures replays of a million vectors beside other libraries': add, sample, update priorities.

bench/peers/install.sh                                  once: the peers' environment, .bench/peers
.venv/bin/python bench/replay.py
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
from comparison.replay_timing import OBSERVATION, measure
from parts.jobs import ROOT, print_machine

from hvd_dqn.registry import REPLAYS, load
from hvd_dqn.transition import Transition, TransitionForm

OURS = "hvd_dqn"
PEERS = ("cpprb", "Stable-Baselines3", "Tianshou")
KINDS = ("uniform", "prioritized")


class Ours:
    """Our replay; a batch is one of K = 1."""

    def __init__(self, capacity: int, kind: str) -> None:
        """Creates a replay."""
        rng = np.random.default_rng(0)
        self._replay = load(REPLAYS, kind)(capacity, TransitionForm((OBSERVATION,), np.dtype(np.float32)), rng)

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Stores transitions."""
        c = columns
        discount = np.float32(0.99) * ~c["done"]
        self._replay.add(Transition(c["obs"], c["act"].astype(np.int32), c["rew"], discount, c["next_obs"]))

    def sample(self, count: int) -> Any:
        """Draws a batch."""
        return self._replay.sample(1, count).indices

    def update(self, drawn: Any, priorities: np.ndarray) -> None:
        """Sets priorities."""
        self._replay.update_priorities(drawn, priorities.reshape(drawn.shape))


def run(implementation: str, kind: str, capacity: int, core: int, peers: Path) -> dict[str, float]:
    """Measures one implementation in a process of its own; returns microseconds by operation."""
    words = ["taskset", "-c", str(core)]
    if implementation == OURS:
        words += [sys.executable, __file__, "--own", kind]
    else:
        words += [str(peers), str(ROOT / "bench" / "peers" / "replays.py"), implementation, kind]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environ = {**os.environ, **threads, "PYTHONPATH": str(ROOT / "bench")}
    words += ["--capacity", str(capacity)] if implementation == OURS else [str(capacity)]
    job = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(job.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measures all in turn and prints a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=3, help="processes of each implementation")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--peers-python", type=Path, default=ROOT / ".bench" / "peers" / "bin" / "python")
    parser.add_argument("--own", choices=KINDS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.own:
        measure(Ours(asked.capacity, asked.own), asked.capacity, asked.own == "prioritized")
        return
    print_machine()
    for kind in KINDS:
        names = [OURS, *(peer for peer in PEERS if kind == "uniform" or peer != "Stable-Baselines3")]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(asked.repetitions):
            for name in names:
                found[name].append(run(name, kind, asked.capacity, asked.core, asked.peers_python))
        print(f"\n{kind}, microseconds of processor time, medians of {asked.repetitions} processes")
        print(f"{'':<14}" + "".join(f"{name:>20}" for name in names))
        for operation in found[OURS][0]:
            medians = [statistics.median(part[operation] for part in found[name]) for name in names]
            best = min(medians[1:])
            print(f"{operation:<14}" + "".join(f"{value:>20.1f}" for value in medians), end="")
            print(f"   fastest peer / ours {best / medians[0]:.2f}")


if __name__ == "__main__":
    main()
