"""Slows one process down to a share of its speed, as a neighbour on its core or a hot processor does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

PERIOD_SECONDS = 0.02


@contextlib.contextmanager
def slowed(pid: int, share: float) -> Iterator[None]:
    """Lets a process run for a share of every 20 ms, and stops it for the rest, while the with-block runs."""
    done = threading.Event()

    def alternate() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not done.wait(share * PERIOD_SECONDS):
                os.kill(pid, signal.SIGSTOP)
                done.wait((1.0 - share) * PERIOD_SECONDS)
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=alternate, name="slowing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
