"""Starts measured processes: one thread each, in a group of their own so that nothing outlives its time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]

_ONE_THREAD = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"]


def environment() -> dict[str, str]:
    """Returns the environment variables of a measured process: bench/ importable, one thread, no accelerator."""
    return {
        **os.environ,
        **dict.fromkeys(_ONE_THREAD, "1"),
        "PYTHONPATH": str(BENCH),
        "PYTHONWARNINGS": "ignore",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_METRICS_COLLECTION": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Starts a command in a folder; its output goes to the files stdout and stderr there."""
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        return subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=stdout, stderr=stderr, start_new_session=True
        )


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Waits for a process; the seconds are counted one by one, so that a suspended comparison does not use them up."""
    for _ in range(max(1, round(seconds))):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
            return True
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills whatever is left of a process and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_words(folder: Path) -> str:
    """Returns the last line that a failed process wrote to stderr (else stdout): with Python, the error."""
    for name in ("stderr", "stdout"):
        lines = [line.strip() for line in (folder / name).read_text(errors="replace").splitlines() if line.strip()]
        # JAX and others explain themselves after the error: the error's own line is the better one.
        errors = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
        if lines:
            return (errors or lines)[-1][:300]
    return "it said nothing"
