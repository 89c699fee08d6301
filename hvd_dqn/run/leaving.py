"""Ends the process in time, whatever threads and processes an environment has left behind."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

_SECONDS = 3.0
"""For what is left to end by itself, once the job is over."""


def bound_exit(code: int, seconds: float = _SECONDS) -> None:
    """Sees to it that the process ends soon after its main thread, with this exit code.

    Python waits without limit for threads that are not daemons and for processes of multiprocessing.
    """
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    left = [thread.name for thread in others if not thread.daemon]
    if "multiprocessing" in sys.modules:
        left += [process.name for process in sys.modules["multiprocessing"].active_children() if not process.daemon]
    if left:
        threading.Thread(target=_end, args=(code, left, seconds), name="exit", daemon=True).start()


def _end(code: int, left: list[str], seconds: float) -> None:
    threading.main_thread().join()  # returns when the interpreter begins to shut down
    time.sleep(seconds)
    with contextlib.suppress(OSError, ValueError):
        print(f"hvd_dqn: does not wait for what the environment left: {', '.join(left)}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)
