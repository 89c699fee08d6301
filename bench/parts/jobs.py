"""Starts train.py under a launcher for a measurement and reads back what it wrote."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comparison.machine import OUR_PACKAGES, machine, versions

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
QUIET = ("--evaluation-period", "0", "--checkpoint-period", "1000000000", "--final-evaluation-episodes", "1")

CARTPOLE = (
    *("--preset", "dqn", "--hidden-sizes", "120", "84", "--global-batch-size", "128", "--train-period", "10"),
    *("--num-envs", "160"),
)
HEAVY_MLP = (
    *("--env", "LunarLander-v3", "--hidden-sizes", "512", "512", "--global-batch-size", "512"),
    *("--train-period", "4", "--num-envs", "16"),
)
NATURE_CNN = (
    *("--env", "ALE/Pong-v5", "--global-batch-size", "32", "--train-period", "4", "--num-envs", "16"),
    *("--replay-capacity", "10000", "--learning-starts", "500"),
)


def environment(**variables: str) -> dict[str, str]:
    """Returns the variables of a measured job: Open MPI lets root in, TensorFlow stays quiet."""
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**os.environ, **root, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}


def launcher(ranks: int, kind: str = "mpirun", programs: Path = BIN) -> list[str]:
    """Returns the words before `python`: of mpirun (a core per rank if there are enough), horovodrun, Gloo, or none."""
    if kind == "alone":
        return ["taskset", "-c", "0"]
    if kind == "gloo":
        return [str(programs / "horovodrun"), "--gloo", "-np", str(ranks)]
    if kind == "horovodrun":
        return [str(programs / "horovodrun"), "-np", str(ranks)]
    crowded = ["--oversubscribe"] if ranks > (os.cpu_count() or 1) else []
    return [str(programs / "mpirun"), *crowded, "-np", str(ranks)]


@contextlib.contextmanager
def finished_run(
    before: list[str], *arguments: str, variables: dict[str, str] | None = None, checkout: Path = ROOT
) -> Iterator[tuple[list[dict[str, Any]], Path]]:
    """Runs a checkout's train.py and yields its records and its run directory.

    Args:
      before: the launcher's words.
      arguments: train.py's.
      variables: added to the environment.
      checkout: another checkout that was set up by `make setup`; this one by default.

    Raises:
      RuntimeError: with the job's output, if it fails.
    """
    folder = tempfile.mkdtemp(prefix="bench-")
    try:
        python = sys.executable if checkout == ROOT else str(checkout / ".venv" / "bin" / "python")
        words = [*before, python, str(checkout / "train.py"), *arguments]
        words += ["--progress", "off", "--name", "bench", "--runs-dir", folder]
        job = subprocess.run(words, env=environment(**(variables or {})), capture_output=True, text=True, check=False)
        if job.returncode:
            raise RuntimeError(f"{' '.join(words)}:\n{job.stdout[-2000:]}{job.stderr[-2000:]}")
        metrics = next(Path(folder).rglob("metrics.jsonl"))
        yield [json.loads(line) for line in metrics.read_text().splitlines()], metrics.parent
    finally:
        shutil.rmtree(folder)


def run(
    before: list[str], *arguments: str, variables: dict[str, str] | None = None, checkout: Path = ROOT
) -> list[dict[str, Any]]:
    """Runs train.py and returns its records; see `finished_run`."""
    with finished_run(before, *arguments, variables=variables, checkout=checkout) as (records, _):
        return records


def train(
    before: list[str], *arguments: str, env_steps: int, log_period: int, variables: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Runs train.py for its speed and returns its training records.

    Raises:
      RuntimeError: with the job's output, if it fails.
    """
    lengths = ("--total-env-steps", str(env_steps), "--log-period", str(log_period))
    return [r for r in run(before, *QUIET, *arguments, *lengths, variables=variables) if r["kind"] == "training"]


def speed(records: list[dict[str, Any]], warm_lines: int = 2) -> float:
    """Returns env steps per second at steady state: the median over the log lines after the first ones."""
    return statistics.median(record["env_steps_per_second"] for record in records[warm_lines:])


def spread(values: list[float], digits: int = 0) -> str:
    """Formats a median with its range."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def verdict(holds: bool) -> str:
    """Formats a bar's outcome."""
    return "PASS" if holds else "FALLS SHORT"


def print_machine() -> None:
    """Prints the machine, its load before anything was started, and our versions."""
    facts, load = machine(), ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, load average at the start {load}")
    print("  ".join(f"{name} {version}" for name, version in versions(sys.executable, OUR_PACKAGES).items()))
    print(f"command: {' '.join(sys.argv)}", flush=True)
