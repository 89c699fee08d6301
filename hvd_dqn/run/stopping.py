"""Turns signals and the end of the time into a request to stop, which the ranks then act on together."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_ECHO_SECONDS = 5.0
"""Schedulers and launchers give one notice several times, to a rank and to its launcher: what SIGTERM and SIGUSR1 say
within this time of the first signal is that notice. A Ctrl-C is a person's."""


class StopRequest:
    """Whether this rank was asked to stop; a second signal that is no echo of the first ends the process at once."""

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
        heard, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # its signals are its own
        threading.Thread(target=self._listen, args=(heard,), name="signals", daemon=True).start()

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

    def _listen(self, heard: int) -> None:
        """Ends the process at a second signal, also while it waits for a stuck rank in compiled code.

        Python runs no handler before that returns, but tells of each signal through a pipe.
        """
        first: float | None = None
        while True:
            for number in os.read(heard, 64):
                if number in _SIGNALS:
                    now = time.monotonic()
                    if first is not None and (number == signal.SIGINT or now - first > _ECHO_SECONDS):
                        os._exit(128 + number)
                    first = now if first is None else first

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.reason = signal.Signals(number).name
