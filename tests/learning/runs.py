"""Runs the real job as a user would and reads its result; keeps the rows of the results table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class Result:
    """One finished run."""

    command: str
    mean_return: float
    low: float
    high: float
    seconds: float

    def row(self) -> str:
        """Returns the run as a row of a Markdown table."""
        return f"| `{self.command}` | {self.mean_return:.1f} | {self.low:.1f} to {self.high:.1f} | {self.seconds:.0f} |"


RESULTS: list[Result] = []
HEADER = "| command | mean return of 100 fresh greedy episodes | 95 % interval | training seconds |\n|---|---|---|---|"


def learn(preset: str, ranks: int, seed: int, folder: Path) -> Result:
    """Trains a preset to its end and returns the final evaluation of its best checkpoint."""
    options = ["--preset", preset, "--seed", str(seed)]
    shown = f"horovodrun -np {ranks} python train.py {' '.join(options)}"
    train(ranks, *options, "--runs-dir", str(folder), "--name", "run")
    (metrics,) = folder.glob("*/run/metrics.jsonl")
    final = json.loads(metrics.read_text().splitlines()[-1])
    assert final["kind"] == "final_evaluation"
    assert final["episodes"] == 100
    result = Result(shown, final["mean_return"], final["low"], final["high"], final["seconds"])
    RESULTS.append(result)
    return result


def train(ranks: int, *options: str) -> None:
    """Runs train.py on some ranks to its end."""
    binaries = Path(sys.executable).parent
    process = subprocess.Popen(
        [str(binaries / "horovodrun"), "-np", str(ranks), "python", "train.py", *options],
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, output
