#!/usr/bin/env python
"""Measures what checkpoints cost: training beside one per minute, an incremental one's size and time, compression.

.venv/bin/python bench/checkpoint.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from parts.jobs import CARTPOLE, launcher, print_machine, speed, spread, train, verdict

from hvd_dqn.checkpoint.segments import SegmentWriter, encode
from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.replay.rows import Rows
from hvd_dqn.transition import Transition

STORED = 1_000_000
NEW = 10_000
FRAMES = 2_000


def played(env: str, num_envs: int, count: int) -> Transition:
    """Returns transitions [count] of a random policy."""
    maker = EnvironmentMaker(env, {}, "auto")
    spaces = maker.spaces()
    collector, rng = Collector(maker.vector(num_envs), spaces, 0.99, EpisodeSeeds()), np.random.default_rng(0)
    collector.reset()
    parts: list[Transition] = []
    while sum(len(part.a_tm1) for part in parts) < count:
        parts.append(collector.step(rng.integers(spaces.num_actions, size=num_envs))[0])
    collector.close()
    return Transition(*(np.concatenate(columns)[:count] for columns in zip(*parts, strict=True)))


def rows(transitions: Transition, first: int, end: int) -> Rows:
    """Returns some of the transitions as a checkpoint holds them."""
    return Rows(Transition(*(column[first:end] for column in transitions)))


def incremental(repetitions: int) -> None:
    """Prints size and time of the segment that a checkpoint adds, with more and more stored before it."""
    everything = played("CartPole-v1", 1_000, STORED + NEW)
    print(f"\nwriting {NEW:,} new CartPole transitions")
    for stored in (10_000, 100_000, 1_000_000):
        seconds, sizes = [], []
        for _ in range(repetitions):
            with tempfile.TemporaryDirectory() as folder:
                writer = SegmentWriter(Path(folder), 0, 1)
                writer.write(rows(everything, 0, stored), 0, 0)
                new = rows(everything, stored, stored + NEW)
                start = time.perf_counter()
                segments = writer.write(new, stored, 0)
                seconds.append(1e3 * (time.perf_counter() - start))
                sizes.append(segments[-1].bytes / 1e3)
        print(f"  {stored:>9,} stored: {spread(seconds, 1)} ms, {statistics.median(sizes):,.0f} kB", flush=True)


def compression() -> None:
    """Prints by how much frames shrink."""
    frames = played("ALE/Pong-v5", 4, FRAMES)
    before, start = sum(column.nbytes for column in frames), time.perf_counter()
    after = len(encode(Rows(frames)))
    seconds = time.perf_counter() - start
    print(
        f"\n{FRAMES:,} Pong transitions: {before / 1e6:.0f} MB become {after / 1e6:.1f} MB, {before / after:.0f} x "
        f"(bar 5) {verdict(before >= 5 * after)}, at {before / 1e6 / seconds:,.0f} MB/s"
    )


def beside_training(repetitions: int, seconds: float) -> None:
    """Prints training's speed with a full replay, with and without one checkpoint per minute."""
    job = (*CARTPOLE, "--replay-capacity", str(STORED))
    pace = speed(train(launcher(1, "alone"), *job, env_steps=100_000, log_period=10_000))
    period, steps = round(60 * pace), round(pace * seconds) + STORED
    speeds: dict[str, list[float]] = {"none": [], "one per minute": []}
    for _ in range(repetitions):
        for name, values in speeds.items():
            every = str(period if name != "none" else 10**12)
            records = train(
                launcher(1, "alone"), *job, "--checkpoint-period", every, env_steps=steps, log_period=20_000
            )
            full = [record for record in records if record["env_steps"] > STORED]
            first, last = full[0], full[-1]
            values.append((last["env_steps"] - first["env_steps"]) / (last["seconds"] - first["seconds"]))
    print(f"\nCartPole with {STORED:,} stored transitions, env steps/s by the clock on the wall")
    for name, values in speeds.items():
        print(f"  checkpoints: {name:<16} {spread(values)}")
    share = statistics.median(speeds["one per minute"]) / statistics.median(speeds["none"])
    print(f"  {100 * share:.1f} % (bar 95 %) {verdict(share >= 0.95)}")


def main() -> None:
    """Measures all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=130.0, help="of each training run, beyond filling the replay")
    arguments = parser.parse_args()
    print_machine()
    incremental(arguments.repetitions)
    compression()
    beside_training(arguments.repetitions, arguments.seconds)


if __name__ == "__main__":
    main()
