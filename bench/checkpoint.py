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

import gymnasium as gym
import numpy as np
from parts.jobs import CARTPOLE, launcher, print_machine, speed, spread, train, verdict

from hvd_dqn.job.segments import SegmentWriter, encode
from hvd_dqn.transition import Transition

STORED = 1_000_000
NEW = 10_000
FRAMES = 2_000


def cartpole(count: int) -> Transition:
    """Returns transitions of a random policy in CartPole."""
    envs = gym.make_vec("CartPole-v1", num_envs=100, vectorization_mode="vector_entry_point")
    rng = np.random.default_rng(0)
    s, _ = envs.reset(seed=0)
    rows = []
    for _ in range(count // 100):
        a = rng.integers(2, size=100)
        s_t, r, terminated, truncated, _ = envs.step(a)
        rows.append((s, a.astype(np.int32), r.astype(np.float32), terminated, truncated, s_t))
        s = s_t
    return Transition(*(np.concatenate(columns) for columns in zip(*rows, strict=True)))


def pong(count: int) -> Transition:
    """Returns transitions of a random policy in Pong: four stacked 84x84 frames."""
    from hvd_dqn.envs.make import EnvironmentMaker

    maker = EnvironmentMaker("ALE/Pong-v5", {}, "auto")
    envs = maker.vector(4)
    rng = np.random.default_rng(0)
    s, _ = envs.reset(seed=0)
    rows = []
    for _ in range(count // 4):
        a = rng.integers(6, size=4)
        s_t, r, terminated, truncated, _ = envs.step(a)
        rows.append((s.copy(), a.astype(np.int32), r.astype(np.float32), terminated, truncated, s_t.copy()))
        s = s_t
    envs.close()
    return Transition(*(np.concatenate(columns) for columns in zip(*rows, strict=True)))


def incremental(repetitions: int) -> None:
    """Prints size and time of the segment that a checkpoint adds, with more and more stored before it."""
    everything = cartpole(STORED + NEW)
    print(f"\nwriting {NEW:,} new CartPole transitions")
    for stored in (10_000, 100_000, 1_000_000):
        seconds, sizes = [], []
        for _ in range(repetitions):
            with tempfile.TemporaryDirectory() as folder:
                writer = SegmentWriter(Path(folder), 0, 1)
                writer.write(Transition(*(column[:stored] for column in everything)), 0, 0)
                new = Transition(*(column[stored : stored + NEW] for column in everything))
                start = time.perf_counter()
                segments = writer.write(new, stored, 0)
                seconds.append(1e3 * (time.perf_counter() - start))
                sizes.append(segments[-1].bytes / 1e3)
        print(f"  {stored:>9,} stored: {spread(seconds, 1)} ms, {statistics.median(sizes):,.0f} kB", flush=True)


def compression() -> None:
    """Prints by how much frames shrink."""
    frames = pong(FRAMES)
    before, start = sum(column.nbytes for column in frames), time.perf_counter()
    after = len(encode(frames))
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
