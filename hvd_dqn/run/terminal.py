"""Where the output goes: standard streams whose loss ends no job, and the terminal behind a launcher."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, TextIO

_LAUNCHERS = ("horovodrun", "mpirun", "mpiexec", "orterun", "orted", "prterun")


class LastingStream:
    """A text stream that ends no job: once it cannot be written (closed pipe, full disk), it writes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        """Wraps a stream."""
        self._stream = stream
        self.report_to: Any = None
        """Where its failure is reported, if anywhere."""

    def write(self, text: str) -> int:
        """Writes text, or loses it."""
        with self._lasting():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or loses what is left."""
        with self._lasting():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _lasting(self) -> Any:
        try:
            yield
        except BlockingIOError:  # a full pipe that does not block loses this text only
            pass
        except (OSError, ValueError) as error:
            lost, self._stream = self._stream, open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            with contextlib.suppress(OSError, ValueError):
                # What C code prints and what the interpreter flushes at its end must not fail, either.
                os.dup2(self._stream.fileno(), lost.fileno())
            if self.report_to is not None:
                print(f"hvd_dqn: the progress display ends ({error}); training continues", file=self.report_to)


def keep_standard_streams() -> None:
    """Makes standard output and error last, whether or not they are open; called before anything is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # otherwise the next file that is opened would take its number, and the output
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if not isinstance(stream, LastingStream):
            setattr(sys, name, LastingStream(stream or open(descriptor, "w", encoding="utf-8")))  # noqa: SIM115


def watched_terminal() -> Any | None:
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
        return LastingStream(stream)
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
