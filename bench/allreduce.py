#!/usr/bin/env python
"""Measures what a learner step pays for the sum over two ranks, beside bare MPI between the same two (the limit).

Bare MPI goes through shared memory, and once over TCP, which is the limit of what is to go between hosts.

.venv/bin/python bench/allreduce.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from parts.jobs import CARTPOLE, environment, launcher, print_machine, speed, spread, train, verdict

PROGRAM = Path(__file__).parent / "programs" / "allreduce_rank.py"
SIZES = {256: 500, 4_096: 500, 17_000: 500, 262_144: 100, 2_097_152: 20, 16_777_216: 5}
"""Floats in the vector, rounds measured."""


BARE, BARE_OVER_TCP = "bare MPI", "bare MPI over TCP"
WAYS = {
    BARE: ("mpirun", "bare", {}),
    BARE_OVER_TCP: ("mpirun", "bare", {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,tcp"}),
    "Horovod over MPI, cycle 1 ms": ("mpirun", "graph", {"HOROVOD_CYCLE_TIME": "1"}),
    "Horovod over MPI, cycle 0.1 ms": ("mpirun", "graph", {"HOROVOD_CYCLE_TIME": "0.1"}),
    "Horovod over MPI, cycle 0": ("mpirun", "graph", {"HOROVOD_CYCLE_TIME": "0"}),
    "Horovod over Gloo, cycle 1 ms": ("gloo", "graph", {"HOROVOD_CYCLE_TIME": "1"}),
    "Horovod over Gloo, cycle 0.1 ms": ("gloo", "graph", {"HOROVOD_CYCLE_TIME": "0.1"}),
}
"""Launcher, loop and settings of each way: the native learner calls MPI as bare MPI does, the general one Horovod."""


def measure(way: str, floats: int, rounds: int, repetitions: int) -> dict[str, list[float]]:
    """Runs one job and returns what its rank 0 measured, in microseconds per round, once per repetition."""
    kind, program, variables = WAYS[way]
    numbers = [str(number) for number in (floats, rounds, repetitions)]
    words = [*launcher(2, kind), sys.executable, str(PROGRAM), program, *numbers]
    root = str(PROGRAM.parents[2])
    job = subprocess.run(
        words, env=environment(PYTHONPATH=root, **variables), capture_output=True, text=True, check=False, timeout=600
    )
    line = next((line for line in job.stdout.splitlines() if '"alone"' in line), None)
    if line is None:
        raise RuntimeError(f"{way}: {job.stdout[-1000:]}{job.stderr[-1000:]}")
    return json.loads(line[line.index("{") :])


def cost_at_one_rank(repetitions: int) -> None:
    """Prints what a launcher and Horovod cost a job of one rank."""
    alone, launched = [], []
    for _ in range(repetitions):
        alone.append(speed(train(launcher(1, "alone"), *CARTPOLE, env_steps=80_000, log_period=10_000)))
        launched.append(speed(train(launcher(1), *CARTPOLE, env_steps=80_000, log_period=10_000)))
    loss = 1 - statistics.median(launched) / statistics.median(alone)
    print(f"\nW = 1, CartPole: python {spread(alone)}, mpirun -np 1 {spread(launched)} env steps/s")
    print(f"  Horovod's cost {100 * loss:.1f} % (bar 3 %) {verdict(loss <= 0.03)}")


def main() -> None:
    """Measures every way at every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    print_machine()
    found: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    for floats, rounds in SIZES.items():
        print(f"\n{floats:,} floats ({4 * floats / 1e6:.3g} MB), two ranks: microseconds per sum")
        for way in WAYS:
            taken = measure(way, floats, rounds, arguments.repetitions)
            found[way][floats] = statistics.median(taken["alone"])
            between = f"   between work {spread(taken['with_work'])}" if taken["with_work"] else ""
            print(f"  {way:<44} {spread(taken['alone']):<32}{between}", flush=True)
    for limit in (BARE, BARE_OVER_TCP):
        print()
        for way in list(WAYS)[2:]:
            if limit == BARE or "Gloo" in way:
                ratio = {floats: found[way][floats] / found[limit][floats] for floats in SIZES}
                small, large = ratio[17_000], max(ratio[floats] for floats in SIZES if floats >= 2e6)
                print(f"{way}: {small:.1f} x {limit} at 17,000 floats (bar 5) {verdict(small <= 5)}, "
                      f"{large:.2f} x at 8 MB and more (bar 1.3) {verdict(large <= 1.3)}")  # fmt: skip
    cost_at_one_rank(arguments.repetitions)
    if arguments.output:
        arguments.output.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
