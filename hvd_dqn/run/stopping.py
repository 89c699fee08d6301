"""Turns signals and the time limit into a request to stop, on which all ranks then act together."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_ECHO_SECONDS = 5.0
"""Schedulers and launchers repeat their signals. Another signal within this time of the first is ignored, but for a
second Ctrl-C."""


class StopRequest:
    """Whether this rank was asked to stop. A second signal, unless it is an echo, ends the process at once."""

    def __init__(self) -> None:
        """Creates a request that is not set. `install` connects the signals."""
        self.requested = False
        self.reason = ""
        self.at_checkpoint = False
        """Whether to stop at the next checkpoint."""
        self.started = time.monotonic()
        self._handled: list[signal.Signals] = []
        self._wakeup: int | None = None
        self._looked_at = -math.inf
        self._handler = self._handle

    def install(self) -> None:
        """Handles SIGINT, SIGTERM, SIGUSR1 and SIGHUP (a closed terminal) from now on."""
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._handled = [number for number in _SIGNALS if not (nohup and number == signal.SIGHUP)]
        read_end, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self.keep_handlers()
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a child handles its own signals
        threading.Thread(target=self._listen, args=(read_end,), name="signals", daemon=True).start()

    def keep_handlers(self, every_seconds: float = 0.0) -> None:
        """Installs the handlers where they are not: an environment or its libraries may have replaced them.

        Args:
          every_seconds: time since the last look within which it does nothing.
        """
        now = time.monotonic()
        if now < self._looked_at + every_seconds:
            return
        self._looked_at = now
        if self._wakeup is None or all(signal.getsignal(n) is self._handler for n in self._handled):
            return
        for number in self._handled:
            signal.signal(number, self._handler)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)

    def request_in(self, seconds: float, grace_seconds: float, reason: str) -> None:
        """Sets the request after some time, or now if that is not positive.

        Args:
          seconds: time until the job should stop at its next checkpoint.
          grace_seconds: time after that until the job should stop wherever it is.
          reason: the reason, for the log.
        """

        def stop_at_checkpoint() -> None:
            self.at_checkpoint = True

        def stop_now() -> None:
            self.requested, self.reason = True, self.reason or reason

        for wait, action in ((seconds, stop_at_checkpoint), (seconds + grace_seconds, stop_now)):
            if wait <= 0.0:
                action()
                continue
            timer = threading.Timer(wait, action)
            timer.daemon = True
            timer.start()

    def _listen(self, read_end: int) -> None:
        """Ends the process at a second signal, even while it waits for a stuck rank inside compiled code.

        Python runs no signal handler until such a call returns, but writes each signal to the wakeup pipe.
        """
        first: float | None = None
        while True:
            for number in os.read(read_end, 64):
                if number in self._handled:
                    now = time.monotonic()
                    if first is not None and (number == signal.SIGINT or now - first > _ECHO_SECONDS):
                        os._exit(128 + number)
                    first = now if first is None else first

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.reason = signal.Signals(number).name
