"""Finds the user's terminal, also behind a launcher that captures the ranks' output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO

_LAUNCHERS = ("horovodrun", "mpirun", "mpiexec", "orterun", "orted", "prterun")


def watched_terminal() -> TextIO | None:
    """Returns a stream to the terminal from which the job was started, or None if the output goes elsewhere.

    Launchers replace the ranks' standard output by pipes (horovodrun) or pseudo-terminals (Open MPI). Under a launcher
    this function looks at the standard output of the outermost launcher instead.
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
    """Returns the process id of the outermost launcher among the ancestors, or None."""
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
