"""The worker that runs learner steps while a rank collects: `--policy-lag 1`, where a core is free for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

SWITCH_SECONDS = 1e-4
"""The interpreter's switch interval while two threads overlap. Python's default of 5 ms is as long as all compiled
updates of an iteration: after each of them, learning would wait that long for the interpreter's lock."""


class Worker(Protocol):
    """Runs one task, at once or while its caller continues."""

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Starts a task; the future's `result` waits for it and raises what it raised."""

    def close(self) -> None:
        """Waits for the running task."""


class InlineWorker:
    """Runs a task at once, where there is no second core. The results are the same."""

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Runs the task."""
        done: Future[Any] = Future()
        try:
            done.set_result(task(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        """Does nothing."""


class ThreadWorker:
    """Runs a task in a thread of its own."""

    def __init__(self) -> None:
        """Lowers the switch interval until `close`; the thread starts with the first task."""
        self._switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="learning")

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Hands the task to the thread."""
        return self._executor.submit(task, *arguments)

    def close(self) -> None:
        """Ends the thread once its task is done."""
        self._executor.shutdown()
        sys.setswitchinterval(self._switch_seconds)
