"""Finds the terminal that a person is watching, also through a launcher that captures the ranks' output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO

_LAUNCHERS = ("horovodrun", "mpirun", "mpiexec", "orterun", "orted", "prterun")


def watched_terminal() -> TextIO | None:
    """Returns a stream to the terminal of whoever started the job, or None if the output goes elsewhere.

    Launchers replace the ranks' standard output (horovodrun by pipes, Open MPI by pseudo-terminals of its own),
    so under a launcher the answer is where the outermost launcher's standard output goes.
    """
    launcher = _outermost_launcher()
    if launcher is None:
        return sys.stdout if sys.stdout.isatty() else None
    try:
        target = os.readlink(f"/proc/{launcher}/fd/1")
        if not target.startswith(("/dev/pts/", "/dev/tty")):
            return None
        stream = open(target, "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the display
    except OSError:
        return None
    if stream.isatty():
        return stream
    stream.close()
    return None


def _outermost_launcher() -> int | None:
    """Returns the process id of the topmost ancestor that is a launcher, or None."""
    found, pid = None, os.getppid()
    while pid > 1:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        names = {os.path.basename(word.decode(errors="replace")) for word in command[:2]}
        if names & set(_LAUNCHERS):
            found = pid
        pid = int(stat.rpartition(")")[2].split()[1])
    return found
