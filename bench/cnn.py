#!/usr/bin/env python
"""Times the Nature CNN's update on one core, without the optimizer: the gradient of a batch with the target's values.

Side by side for shares of a batch of 32, as ranks have them: the compiled passes, TensorFlow as `--backend mixed` uses
it, and PyTorch, whose program runs in between.

.venv/bin/python bench/cnn.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[name] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402
from parts.jobs import ROOT, print_machine, spread  # noqa: E402

from hvd_dqn.learner.graph_gradients import GraphGradients  # noqa: E402
from hvd_dqn.learner.graph_network import GraphNetwork  # noqa: E402
from hvd_dqn.learner.learner import NUM_STATISTICS  # noqa: E402
from hvd_dqn.native.compiled_cnn import CompiledCNN  # noqa: E402
from hvd_dqn.native.compiled_gradients import make_host_gradients  # noqa: E402
from hvd_dqn.native.heap import keep_freed_memory  # noqa: E402
from hvd_dqn.native.learner import Gradients  # noqa: E402
from hvd_dqn.native.library import aligned_zeros, load_kernels  # noqa: E402
from hvd_dqn.networks.build import build_network  # noqa: E402
from hvd_dqn.transition import Transition  # noqa: E402

TORCH_CNN = Path(__file__).parent / "programs" / "torch_cnn.py"
IMAGE, PIXEL, ACTIONS = (84, 84, 4), np.dtype(np.uint8), 6
BATCH, UPDATES = 32, 4
RULE: dict[str, Any] = {"loss": "huber", "gamma": 0.99, "double_dqn": False, "global_batch_size": BATCH}


def ways(rows: int) -> dict[str, Gradients]:
    """Returns the ways to compute the gradient of a share of so many rows."""
    model = build_network("cnn", IMAGE, PIXEL, 0, ACTIONS, (), 0)
    network = GraphNetwork(model, **RULE)
    layout = network.layout
    online = aligned_zeros(layout.total)
    online[:] = layout.flatten_variables(model)
    vector = partial(aligned_zeros, layout.total + NUM_STATISTICS)
    shape = {"batch_size_per_rank": rows}
    cnn = CompiledCNN(load_kernels(), layout, IMAGE, PIXEL)
    return {
        "compiled": make_host_gradients(cnn, online, online.copy(), vector(), **RULE, **shape),
        "TensorFlow": GraphGradients(network, online, online, vector(), **shape),
    }


def batches(rows: int) -> Transition:
    """Returns an iteration's batches."""
    rng, shape = np.random.default_rng(0), (UPDATES, rows)
    s_tm1, s_t = (rng.integers(256, size=(*shape, *IMAGE), dtype=np.uint8) for _ in range(2))
    ended = np.zeros(shape, bool)
    actions = rng.integers(ACTIONS, size=shape).astype(np.int32)
    return Transition(s_tm1, actions, rng.normal(size=shape).astype(np.float32), ended, ended, s_t)


def milliseconds(gradients: Gradients, drawn: Transition, iterations: int = 5) -> float:
    """Returns the time of an update, the target's values included."""
    start = time.perf_counter()
    for _ in range(iterations):
        gradients.prepare(drawn, np.zeros(0, np.float32))
        for k in range(UPDATES):
            gradients.compute(k)
    return 1e3 * (time.perf_counter() - start) / (iterations * UPDATES)


def torch_milliseconds(python: str, rows: int) -> float:
    """Returns the median of its program.

    Raises:
      SystemExit: if it does not run.
    """
    output = subprocess.run([python, str(TORCH_CNN), str(rows)], capture_output=True, text=True, check=False)
    if output.returncode:
        sys.exit(f"PyTorch does not run, make its environment with bench/peers/install.sh:\n{output.stderr[-500:]}")
    return statistics.median(float(line) for line in output.stdout.split())


def main() -> None:
    """Measures on core 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--peers-python", default=str(ROOT / ".bench" / "peers" / "bin" / "python"))
    arguments = parser.parse_args()
    print_machine()
    os.sched_setaffinity(0, {0})
    keep_freed_memory()
    shares = [BATCH, BATCH // 2, BATCH // 4]
    drawn = {rows: batches(rows) for rows in shares}
    own = {rows: ways(rows) for rows in shares}
    times: dict[str, dict[int, list[float]]] = {}
    for repetition in range(arguments.repetitions + 1):  # the first does not count
        for rows in shares:
            measured = {name: milliseconds(way, drawn[rows]) for name, way in own[rows].items()}
            measured["PyTorch"] = torch_milliseconds(arguments.peers_python, rows)
            for name, time_taken in measured.items():
                times.setdefault(name, {}).setdefault(rows, []).extend([time_taken] if repetition else [])
    print(f"\nmilliseconds of a gradient with the target's values, medians of {arguments.repetitions} (range)\n")
    for name, of in times.items():
        for rows in shares:
            print(f"{name:<11} {rows:>3} rows  {spread(of[rows], 1)}")
        whole, half, quarter = (statistics.median(of[rows]) for rows in shares)
        two, four = whole / half, half / quarter / 2
        print(f"  alone allows two ranks {two:.2f} times one's speed, four on two cores {four:.2f} of that")


if __name__ == "__main__":
    main()
