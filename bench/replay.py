#!/usr/bin/env python
"""Measures replays beside other libraries': add, sample, update priorities.

bench/peers/install.sh                                  once: the peers' environment, .bench/peers
.venv/bin/python bench/replay.py                        a million vectors
.venv/bin/python bench/replay.py --observations frames  100,000 stacks of four Atari frames
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
from comparison.replay_timing import DTYPES, SHAPES, measure
from parts.jobs import ROOT, print_machine

from hvd_dqn.registry import REPLAYS, load
from hvd_dqn.transition import Transition, TransitionForm

OURS = "hvd_dqn"
WHOLE = "whole frames"
"""Ours with --stacked-frames 1."""
PEERS = ("cpprb", "Stable-Baselines3", "Tianshou")
KINDS = ("uniform", "prioritized")
CAPACITIES = {"vectors": 1_000_000, "frames": 100_000}
"""Of frames, as many as a machine of 16 GiB holds where they are whole: 5.6 GB."""


class Ours:
    """Our replay; a batch is one of K = 1."""

    def __init__(self, capacity: int, kind: str, observations: str, whole: bool) -> None:
        """Creates a replay."""
        stacked_frames = 4 if observations == "frames" and not whole else 1
        form = TransitionForm(SHAPES[observations], np.dtype(DTYPES[observations]), (), stacked_frames)
        self._replay = load(REPLAYS, kind)(capacity, form, np.random.default_rng(0))

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


def run(implementation: str, kind: str, capacity: int, observations: str, core: int, peers: Path) -> dict[str, float]:
    """Measures one implementation in a process of its own; returns microseconds by operation."""
    words = ["taskset", "-c", str(core)]
    if implementation in (OURS, WHOLE):
        words += [sys.executable, __file__, "--own", kind, "--capacity", str(capacity), "--observations", observations]
        words += ["--whole"] if implementation == WHOLE else []
    else:
        program = ROOT / "bench" / "peers" / "replays.py"
        words += [str(peers), str(program), implementation, kind, str(capacity), observations]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environ = {**os.environ, **threads, "PYTHONPATH": str(ROOT / "bench")}
    job = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(job.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measures all in turn and prints a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", choices=CAPACITIES, default="vectors")
    parser.add_argument("--capacity", type=int, help="default: 1,000,000 vectors, 100,000 stacks of frames")
    parser.add_argument("--repetitions", type=int, default=3, help="processes of each implementation")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--peers-python", type=Path, default=ROOT / ".bench" / "peers" / "bin" / "python")
    parser.add_argument("--own", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    capacity, observations = asked.capacity or CAPACITIES[asked.observations], asked.observations
    if asked.own:
        subject = Ours(capacity, asked.own, observations, asked.whole)
        measure(subject, capacity, asked.own == "prioritized", observations)
        return
    print_machine()
    for kind in KINDS:
        peers = [peer for peer in PEERS if kind == "uniform" or peer != "Stable-Baselines3"]
        names = [OURS, *([WHOLE] if observations == "frames" else []), *peers]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(asked.repetitions):
            for name in names:
                found[name].append(run(name, kind, capacity, observations, asked.core, asked.peers_python))
        print(f"\n{capacity:,} {observations}, {kind}: microseconds of processor time, medians of", end=" ")
        print(f"{asked.repetitions} processes")
        print(f"{'':<14}" + "".join(f"{name:>20}" for name in names))
        for operation in found[OURS][0]:
            medians = [statistics.median(part[operation] for part in found[name]) for name in names]
            best = min(median for name, median in zip(names, medians, strict=True) if name in PEERS)
            print(f"{operation:<14}" + "".join(f"{value:>20.1f}" for value in medians), end="")
            print(f"   fastest peer / ours {best / medians[0]:.2f}")


if __name__ == "__main__":
    main()
