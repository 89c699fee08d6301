"""Runs programs in turn on ranks that stay up: TensorFlow is imported and MPI started once for all of them.

    run_in_turn.py FOLDER PID

Every rank takes FOLDER/<number>.json, number after number: {"program": path, "arguments": [...], "environ": {...}}.
It runs the program as `python program arguments...` would, with its output in <number>.rank<r>.log, and then writes
its exit code to <number>.rank<r>.code. The ranks end when process PID has ended.
"""

from __future__ import annotations

import itertools
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment

LAUNCH = read_launch()
# One core and one thread per rank, whatever the machine: TensorFlow's threads cannot be changed after its first job.
prepare_environment(LAUNCH, 1, 0.0)
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])

import tensorflow as tf  # noqa: E402


def wait_for_job(path: Path, pid: int) -> dict[str, Any]:
    """Returns the next job, once it is there."""
    while not path.exists():
        if not is_running(pid):
            sys.exit(1)
        time.sleep(0.02)
    job: dict[str, Any] = json.loads(path.read_text())
    return job


def is_running(pid: int) -> bool:
    """Returns whether a process exists and has not ended; one that nobody has waited for yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def redirect_output(path: Path) -> None:
    """Sends what this process prints, in Python and in C, to a file."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def forget() -> None:
    """Drops what stays in the process: signal handlers, the numbers of Keras' layers, fsspec's connections."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    tf.keras.backend.clear_session()
    for name, kind in (("s3fs", "S3FileSystem"), ("fsspec.implementations.memory", "MemoryFileSystem")):
        if name in sys.modules:
            getattr(sys.modules[name], kind).clear_instance_cache()


def run(program: str, arguments: list[str]) -> int:
    """Runs a program as __main__ and returns its exit code."""
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Runs on every rank."""
    folder, pid = Path(sys.argv[1]), int(sys.argv[2])
    environ = dict(os.environ)
    for number in itertools.count():
        job = wait_for_job(folder / f"{number}.json", pid)
        own = folder / f"{number}.rank{LAUNCH.rank}"
        redirect_output(own.with_name(f"{own.name}.log"))
        os.environ.update(job["environ"])
        code = run(job["program"], job["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
        os.environ.clear()
        os.environ.update(environ)
        forget()
        part = own.with_name(f"{own.name}.part")
        part.write_text(str(code))
        part.rename(own.with_name(f"{own.name}.code"))


if __name__ == "__main__":
    main()
