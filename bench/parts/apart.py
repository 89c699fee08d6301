"""Runs train.py on hosts that are namespaces of this machine, a core each as far as there are, over links of any delay.

Only root can make them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parts.jobs import ROOT, environment

sys.path += [str(ROOT / "tests" / "launch"), str(ROOT / "tests" / "parallel")]

from hosts import Hosts, Link, running_hosts
from launching import read_metrics


@contextlib.contextmanager
def hosts_apart(count: int, link: Link | None) -> Iterator[Hosts]:
    """Yields hosts of a core each; with None their links are as fast as this machine."""
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder, running_hosts(Path(folder), count, link) as hosts:
        cores = sorted(os.sched_getaffinity(0))
        for number, node in enumerate(hosts.nodes):
            for pid in node.processes():  # and those that they will start
                os.sched_setaffinity(pid, {cores[number % len(cores)]})
        yield hosts


def run_on(hosts: Hosts, controller: str, *arguments: str, seconds: float) -> list[dict[str, Any]]:
    """Runs train.py with a rank on each host and returns its records.

    Args:
      hosts: these.
      controller: mpi or gloo.
      arguments: train.py's.
      seconds: that it may take.

    Raises:
      RuntimeError: with the job's output, if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        places = ",".join(f"{node.name}:1" for node in hosts.nodes)
        where = ("--progress", "off", "--name", "bench", "--runs-dir", folder)
        command: list[str | Path] = [ROOT / "launch" / "hosts.sh", f"--{controller}", "-H", places, "--"]
        command += [*arguments, *where]
        job = subprocess.run(
            ["taskset", "-c", "0", *hosts.nodes[0].command(*command)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if job.returncode:
            raise RuntimeError(f"{command}:\n{job.stdout[-2000:]}{job.stderr[-2000:]}")
        return read_metrics(next(Path(folder).glob("*/bench")))
