#!/usr/bin/env python
"""Measures what a learner step pays for the sum over the ranks, beside a bare mpi4py Allreduce between the same ranks.

Every way (our two paths under MPI, Horovod under MPI and Gloo at several cycle times, bare MPI, bare TCP) is a fresh
job, and the ways take turns; a job measures all sizes, first in a loop that does nothing else, then with about 100
microseconds of matrix products between two sums: a background thread that spins is free in a bare loop and dear in a
job. Last, what `mpirun -np 1` costs train.py beside a plain process.

    .venv/bin/python bench/synchronisation.py --output results.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from exchange.contenders import Load, Sample, contenders
from exchange.report import (
    against_the_limit,
    bars_table,
    judge_exchange,
    judge_single_rank,
    single_rank_table,
    table,
)
from exchange.single_rank import measure_single_rank
from jobs.launching import JobFailedError, environment, run_program
from jobs.tables import describe, facts
from jobs.training import Window

SIZES = [1_000, 16_000, 68_000, 1_000_000, 8_000_000, 64_000_000]
"""Bytes; 68 kB are 17,000 floats, a small MLP's gradient."""
WORK_SECONDS = 100e-6


def main() -> None:
    """Runs the comparison that the command line asks for."""
    arguments = parse()
    known = facts()
    print(describe(known), flush=True)
    load = Load(arguments.sizes, arguments.seconds, count_products(arguments.limit))
    measured = {ranks: repeat(ranks, load, arguments) for ranks in arguments.ranks}
    speeds: dict[str, list[float]] = {}
    if arguments.single_rank_repetitions:
        window = Window(warm_seconds=2.0, seconds=arguments.single_rank_seconds)
        speeds = measure_single_rank(arguments.single_rank_repetitions, window)
    bars = [bar for ranks, (samples, _) in measured.items() for bar in judge_exchange(samples, ranks)]
    bars += judge_single_rank(speeds) if speeds else []
    for ranks, (samples, work) in measured.items():
        print(f"\n## {ranks} ranks, in a bare loop\n\n{table(samples, 'loop')}\n\n{against_the_limit(samples, 'loop')}")
        print(f"\n## {ranks} ranks, between {work * 1e6:.0f} microseconds of matrix products, these left out\n")
        print(table(samples, "work", work))
    print(f"\n## One rank\n\n{single_rank_table(speeds)}" if speeds else "")
    print(f"\n## Bars\n\n{bars_table(bars)}")
    if arguments.output:
        record: dict[str, Any] = {
            "facts": known,
            "ranks": {
                str(ranks): {"work_seconds": work, "samples": [sample._asdict() for sample in samples]}
                for ranks, (samples, work) in measured.items()
            },
            "single_rank_env_steps_per_second": speeds,
            "bars": bars,
        }
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")


def repeat(ranks: int, load: Load, arguments: argparse.Namespace) -> tuple[list[Sample], float]:
    """Measures all contenders in turn, once per repetition; a job that fails is named and left out.

    Returns:
      The samples, and the seconds that the work takes on busy ranks that talk to nobody.
    """
    samples: list[Sample] = []
    alone: list[float] = []
    for repetition in range(1, arguments.repetitions + 1):
        for contender in contenders(ranks):
            try:
                found, work = contender.measure(ranks, load, arguments.limit)
            except JobFailedError as error:
                print(f"{contender.name}: {error}", file=sys.stderr, flush=True)
                continue
            samples += found
            alone += [] if work is None else [work]
            print(f"{ranks} ranks, {repetition}: {contender.name}", file=sys.stderr, flush=True)
    return samples, statistics.median(alone) if alone else WORK_SECONDS


def count_products(limit: float) -> int:
    """Returns how many matrix products are the work."""
    arguments = ["--sizes", "0", "--target", str(WORK_SECONDS)]
    return run_program([], "programs.work", arguments, environment(), limit)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2], help="numbers of ranks")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="BYTES", help="of the summed vector")
    parser.add_argument("--repetitions", type=int, default=5, help="fresh jobs of every way")
    parser.add_argument("--seconds", type=float, default=0.3, help="per size and path within a job, about")
    parser.add_argument("--single-rank-repetitions", type=int, default=7, help="of train.py at one rank; 0: none")
    parser.add_argument("--single-rank-seconds", type=float, default=6.0, help="per run, after 2 s of learning")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a job has failed")
    parser.add_argument("--output", type=Path, help="JSON file for everything that was measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
