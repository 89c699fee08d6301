"""Collecting and learning at the same time: what `--policy-lag 1` does where there is a core for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

SWITCH_SECONDS = 1e-4
"""Time after which a thread in Python code hands Python's lock to one that waits for it. Python's own 5 ms are as long
as all compiled updates of an iteration: learning, back from them, would wait that long for collecting each time."""


class Worker(Protocol):
    """Runs one task while its caller continues, or before."""

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Starts a task; the future's `result` waits for it and raises what it raised."""

    def close(self) -> None:
        """Waits for a task under way."""


class InlineWorker:
    """Runs a task at once: where there is no second core. The results are the same."""

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
        """Starts no thread before the first task, and lets threads change sooner until `close`."""
        self._switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="learning")

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Hands the task over."""
        return self._executor.submit(task, *arguments)

    def close(self) -> None:
        """Ends the thread once its task is done."""
        self._executor.shutdown()
        sys.setswitchinterval(self._switch_seconds)
