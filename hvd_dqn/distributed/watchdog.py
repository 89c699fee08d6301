"""Ends a rank that waits for the others for too long; Horovod's own stall check does nothing under Gloo.

A rank that has waited for half of the limit leaves a mark on the disk that all share. At the limit a rank sees
in the marks what the others were doing: a rank that left none was stopped, or is gone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.errors import CheckpointError, StoreError
from hvd_dqn.files import read_file, remove, write_file

_TICK_SECONDS = 0.5
_MARK_BYTES = 10_000
NO_MARKS = Path(os.devnull, "waiting")
"""Where no mark can be left: there is no run directory, or it is another job's."""


class Watchdog:
    """A thread that expects `beat` at least every `limit_seconds`.

    A process that was itself stopped (SIGSTOP, a suspended machine) is not blamed for the time it did not see.
    """

    def __init__(
        self,
        limit_seconds: float,
        rank: int,
        size: int,
        folder: Path,
        abort: Callable[[int], None],
        heartbeat: Callable[[], None] = lambda: None,
        running: Callable[[], str] = lambda: "",
    ) -> None:
        """Prepares the watchdog; `start` begins the watch.

        Args:
          limit_seconds: the longest silence allowed; 0 watches nothing.
          rank: this rank, for the message.
          size: W.
          folder: of the marks, the same for all ranks; it is made when it is needed.
          abort: ends the process (and the job) with an exit code.
          heartbeat: called at each `beat`.
          running: returns which call of foreign code is running, "" if none is.
        """
        self._limit = limit_seconds
        self._rank, self._size = rank, size
        self._marks = folder
        self._abort = abort
        self._heartbeat = heartbeat
        self._running = running
        self._since = time.monotonic()
        self._deadline = self._since + limit_seconds
        self._doing = "starting"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begins the watch."""
        self.beat("starting")
        if self._limit > 0:
            if self._path(self._rank).exists():  # of a job that ended
                self._unmark()
            self._thread.start()

    def beat(self, doing: str, allow: float = 1.0) -> None:
        """Says that the rank lives and what it does next.

        Args:
          doing: what comes next, for the message.
          allow: how many times the usual limit it may take.
        """
        self._heartbeat()
        self._doing = doing
        self._since = time.monotonic()
        self._deadline = self._since + self._limit * allow

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        seen, marked = time.monotonic(), False
        while not self._stopped.wait(_TICK_SECONDS):
            now = time.monotonic()
            if now - seen > 4 * _TICK_SECONDS:
                self._since += now - seen
                self._deadline += now - seen
            seen = now
            waiting = now > (self._since + self._deadline) / 2
            if waiting:
                self._mark()
            elif marked:
                self._unmark()
            marked = waiting
            if now > self._deadline:
                print(
                    f"hvd_dqn: rank {self._rank} got no further for {self._limit:g} s while {self._what()}: "
                    f"{self._others()}. The job ends; resume it with --resume RUN_DIR, or allow more with "
                    "--stall-timeout-seconds.",
                    file=sys.stderr,
                    flush=True,
                )
                self._abort(1)
                return
        if marked:
            self._unmark()

    def _mark(self) -> None:
        """Leaves this rank's mark, or puts a new one in its place: a network file system then looks there again."""
        with contextlib.suppress(OSError):
            if self._marks.parent.is_dir():  # the run directory has not been removed
                write_file(self._path(self._rank), self._what().encode(), durable=False)

    def _what(self) -> str:
        """Returns what the rank is doing, with the call of foreign code that it waits for."""
        running = self._running()
        return f"{self._doing} ({running} is running)" if running else self._doing

    def _unmark(self) -> None:
        with contextlib.suppress(OSError):
            remove(self._path(self._rank))
            self._marks.rmdir()

    def _path(self, rank: int) -> Path:
        return self._marks / f"rank-{rank:05d}"

    def _others(self) -> str:
        """Returns what the marks say about the other ranks."""
        self._mark()
        doing: dict[int, str] = {}
        for rank in range(self._size):
            with contextlib.suppress(OSError, StoreError, CheckpointError):
                doing[rank] = read_file(self._path(rank), _MARK_BYTES).decode(errors="replace")
        silent = [rank for rank in range(self._size) if rank not in doing]
        if self._rank in silent:  # no mark can be left there
            return "another rank is lost, stopped or far slower"
        if silent:
            return f"no sign of life from rank(s) {', '.join(map(str, silent))}, lost or stopped"
        return "all ranks live, " + ", ".join(f"rank {rank} {what}" for rank, what in sorted(doing.items()))


def watchdog_of(
    communicator: Communicator,
    limit_seconds: float,
    calls: object,
    marks: Path = NO_MARKS,
    heartbeat: Callable[[], None] = lambda: None,
) -> Watchdog:
    """Returns the watchdog of a communicator's rank.

    Args:
      communicator: the job's.
      limit_seconds: see `Watchdog`.
      calls: its text is the call of foreign code that is running, "" if none is.
      marks: folder of the marks.
      heartbeat: called at each `beat`.
    """
    rank, size = communicator.rank, communicator.size
    return Watchdog(limit_seconds, rank, size, marks, communicator.abort, heartbeat, running=lambda: str(calls))
