#!/usr/bin/env python
"""Measures how long a job takes to save and leave once a rank is told to, with a million stored transitions.

.venv/bin/python bench/preemption.py
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from parts.jobs import ROOT, environment, launcher, print_machine, spread, verdict

STORED = 1_000_000
RANKS = 2
JOB = (
    *("--replay-capacity", str(STORED), "--learning-starts", str(STORED), "--num-envs", "1000", "--name", "run"),
    *("--train-period", "1000", "--total-env-steps", str(10**12), "--evaluation-period", "0", "--log-period", "10000"),
)


def env_steps(run_directory: Path) -> int:
    """Returns how far a run is."""
    try:
        return json.loads((run_directory / "metrics.jsonl").read_text().splitlines()[-1])["env_steps"]
    except (OSError, IndexError, ValueError):
        return 0


def seconds_to_leave(checkpoint_period: int) -> float:
    """Returns the seconds from SIGUSR1 at the last rank to the launcher's end.

    Raises:
      RuntimeError: with the job's output, if it does not end with exit code 75.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    words = [*launcher(RANKS), sys.executable, str(ROOT / "train.py"), *JOB, "--runs-dir", str(folder)]
    with tempfile.TemporaryFile("w+") as said:
        job = subprocess.Popen(
            [*words, "--checkpoint-period", str(checkpoint_period)], env=environment(), stdout=said, stderr=said
        )
        try:
            while job.poll() is None and env_steps(folder / "CartPole-v1" / "run") < STORED + 100_000:
                time.sleep(0.2)
            ranks = [child for child in psutil.Process(job.pid).children() if "train.py" in " ".join(child.cmdline())]
            since = time.perf_counter()
            os.kill(ranks[-1].pid, signal.SIGUSR1)
            code = job.wait(300)
            seconds = time.perf_counter() - since
            if code != 75:
                said.seek(0)
                raise RuntimeError(f"exit code {code}:\n{said.read()[-2000:]}")
            return seconds
        finally:
            if job.poll() is None:
                job.terminate()
                job.wait()
            shutil.rmtree(folder)


def main() -> None:
    """Measures both: everything still to be written, and only what is new since the last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    print_machine()
    print(f"\nSIGUSR1 to one of {RANKS} ranks, {STORED:,} stored CartPole transitions: seconds until the job has left")
    for name, period in (("no checkpoint before", 10**12), ("one per 100,000 env steps", 100_000)):
        seconds = [seconds_to_leave(period) for _ in range(arguments.repetitions)]
        print(f"  {name:<26} {spread(seconds, 1)} s (bar 30) {verdict(max(seconds) < 30.0)}", flush=True)


if __name__ == "__main__":
    main()
