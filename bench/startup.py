#!/usr/bin/env python
"""Measures the way to the first learner step beside what importing TensorFlow and starting Horovod take alone.

.venv/bin/python bench/startup.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from parts.jobs import ROOT, environment, launcher, print_machine, spread, train, verdict

FLOOR = "import tensorflow, time, horovod.tensorflow as hvd; hvd.init(); print('ready', time.time(), flush=True)"


def floor() -> float:
    """Returns the seconds until two ranks have imported TensorFlow and initialised Horovod."""
    start = time.time()
    words = [*launcher(2), sys.executable, "-c", FLOOR]
    output = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True).stdout
    return max(float(line.split()[1]) for line in output.splitlines() if line.startswith("ready")) - start


def first_learner_step() -> float:
    """Returns the seconds until train.py on two ranks has logged its first learner step."""
    start = time.time()
    records = train(launcher(2), "--preset", "dqn", "--learning-starts", "16", env_steps=64, log_period=16)
    return next(record["unix_time"] for record in records if record["learner_steps"] > 0) - start


def help_text() -> float:
    """Returns the seconds of `train.py --help`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "train.py"), "--help"], capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measures the three in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    print_machine()
    floors, firsts, helps = [], [], []
    for _ in range(repetitions):
        floors.append(floor())
        firsts.append(first_learner_step())
        helps.append(help_text())
    ratio, shown = statistics.median(firsts) / statistics.median(floors), statistics.median(helps)
    print(f"TensorFlow imported and Horovod initialised, -np 2: {spread(floors, 2)} s")
    print(f"train.py's first learner step on CartPole, -np 2:   {spread(firsts, 2)} s")
    print(f"  ratio {ratio:.2f} (bar 1.3) {verdict(ratio <= 1.3)}")
    print(f"train.py --help: {spread(helps, 2)} s (bar 0.7) {verdict(shown < 0.7)}")


if __name__ == "__main__":
    main()
