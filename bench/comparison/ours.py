"""Measures train.py: a plain training run, timed by the lines of its own metrics.jsonl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from comparison.processes import BENCH, end, last_words, start
from comparison.protocol import Task

_POLL_SECONDS = 0.2


def measure_ours(task: Task, folder: Path, limit: float) -> dict[str, Any]:
    """Runs train.py until the measurement is complete, then stops it.

    Args:
      task: its `updates_per_burst` is not used: train.py updates after each vector step.
      folder: where the run directory goes.
      limit: seconds after which it has failed.

    Returns:
      The same answer as a peer's.
    """
    process = start(command(task, folder), folder)
    first: tuple[dict[str, Any], float] | None = None
    try:
        for _ in range(round(limit / _POLL_SECONDS)):
            time.sleep(_POLL_SECONDS)
            if process.poll() is not None:
                return {"failed": last_words(folder)}
            lines = _training_lines(folder)
            if first is None:
                warm = [line for line in lines if line["seconds"] - lines[0]["seconds"] >= task.warm_seconds]
                first = (warm[-1], _cpu_seconds(process)) if warm else None
            elif lines[-1]["seconds"] - first[0]["seconds"] >= task.seconds:
                return _difference(first[0], lines[-1], _cpu_seconds(process) - first[1])
        return {"failed": f"not finished after {limit:.0f} s"}
    finally:
        end(process)


def command(task: Task, folder: Path) -> list[str]:
    """Returns train.py's command line for a task: the case's values, no evaluation, no checkpoint on the way."""
    case = task.case
    vectorization, *learner = task.option.split()
    module = "comparison.minatar_ids:" if case.env.startswith("Flat/") else ""
    flags = {
        "preset": "atari" if task.case.is_atari else "dqn",
        "env": module + case.env,
        "num-envs": task.num_envs,
        "vectorization": vectorization,
        "learner": (learner or ["auto"])[0],
        "global-batch-size": case.batch_size,
        "train-period": case.train_period,
        "learning-rate": case.learning_rate,
        "replay-capacity": case.replay_capacity,
        "learning-starts": case.learning_starts,
        "target-update-period": case.target_update_period,
        "gamma": case.gamma,
        "max-grad-norm": case.max_grad_norm,
        "loss": "huber",
        "epsilon-start": case.epsilon,
        "epsilon-end": case.epsilon,
        "seed": task.seed,
        "total-env-steps": 10**12,
        "log-period": _log_period(task),
        "checkpoint-period": 10**12,
        "evaluation-period": 0,
        "progress": "off",
        "threads-per-rank": 1,
        "runs-dir": folder / "runs",
    }
    words = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    if case.hidden_sizes:
        words += ["--hidden-sizes", *map(str, case.hidden_sizes)]
    return [sys.executable, str(BENCH.parent / "train.py"), *words]


def _log_period(task: Task) -> int:
    """Returns env steps between two lines: a few lines a second, which cost nothing."""
    return 160 if task.case.is_atari else 10_000 if task.case.train_period >= 10 else 2_000


def _training_lines(folder: Path) -> list[dict[str, Any]]:
    """Reads the lines since learning began; one that is half written is left for the next time."""
    lines = []
    for path in (folder / "runs").rglob("metrics.jsonl"):
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if line["kind"] == "training" and line["learner_steps"] > 0:
                lines.append(line)
    return lines


def _difference(first: dict[str, Any], last: dict[str, Any], cpu_seconds: float) -> dict[str, Any]:
    return {
        "seconds": last["seconds"] - first["seconds"],
        "cpu_seconds": cpu_seconds,
        "env_steps": last["env_steps"] - first["env_steps"],
        "updates": last["learner_steps"] - first["learner_steps"],
        # Environments reset in the step after an episode's end: counted as an env step, but no transition.
        "reset_steps": last["episodes"] - first["episodes"],
    }


def _cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Returns the processor time that the process has used, all threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
