"""Turns signals and the end of the time into a request to stop, which the ranks then act on together."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether this rank was asked to stop; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        """Starts without a request; `install` connects the signals."""
        self.requested = False
        self.reason = ""
        self.at_checkpoint = False
        """Whether the next checkpoint is to be the last of this process."""
        self.started = time.monotonic()

    def install(self) -> None:
        """Handles SIGINT, SIGTERM and SIGUSR1 from now on."""
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def request_in(self, seconds: float, patience: float, reason: str) -> None:
        """Asks by itself, after some time or, if that is not positive, at once.

        Args:
          seconds: until the next checkpoint is to be the last.
          patience: seconds after that until the job is to stop wherever it is.
          reason: why.
        """

        def ask() -> None:
            self.at_checkpoint = True

        def insist() -> None:
            self.requested, self.reason = True, self.reason or reason

        for wait, action in ((seconds, ask), (seconds + patience, insist)):
            if wait <= 0.0:
                action()
                continue
            timer = threading.Timer(wait, action)
            timer.daemon = True
            timer.start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            os._exit(128 + number)
        self.requested = True
        self.reason = signal.Signals(number).name
