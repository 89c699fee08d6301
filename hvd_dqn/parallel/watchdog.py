"""Ends a rank that waits for the others for too long; Horovod's own stall check does nothing under Gloo."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

_TICK_SECONDS = 0.5


class Watchdog:
    """A thread that expects `beat` at least every `limit_seconds`.

    A process that was itself stopped (SIGSTOP, a suspended machine) is not blamed for the time it did not see.
    """

    def __init__(self, limit_seconds: float, rank: int, abort: Callable[[int], None]) -> None:
        """Prepares the watchdog; `start` begins the watch.

        Args:
          limit_seconds: the longest silence allowed; 0 watches nothing.
          rank: this rank, for the message.
          abort: ends the process (and the job) with an exit code.
        """
        self._limit = limit_seconds
        self._rank = rank
        self._abort = abort
        self._deadline = time.monotonic() + limit_seconds
        self._doing = "starting"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begins the watch."""
        self.beat("starting")
        if self._limit > 0:
            self._thread.start()

    def beat(self, doing: str, allow: float = 1.0) -> None:
        """Says that the rank lives and what it does next.

        Args:
          doing: what comes next, for the message.
          allow: how many times the usual limit it may take.
        """
        self._doing = doing
        self._deadline = time.monotonic() + self._limit * allow

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()

    def _watch(self) -> None:
        seen = time.monotonic()
        while not self._stopped.wait(_TICK_SECONDS):
            now = time.monotonic()
            if now - seen > 4 * _TICK_SECONDS:
                self._deadline += now - seen
            seen = now
            if now > self._deadline:
                print(
                    f"hvd_dqn: rank {self._rank} got no further for {self._limit:g} s while {self._doing}: another "
                    "rank is lost, stopped or far slower. The job ends; go on with --resume RUN_DIR, or allow "
                    "more with --stall-timeout-seconds.",
                    file=sys.stderr,
                    flush=True,
                )
                self._abort(1)
