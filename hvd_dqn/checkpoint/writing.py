"""A checkpoint that a thread writes while training goes on."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from hvd_dqn.errors import CheckpointError, UserError


class Writing:
    """A checkpoint under way."""

    def __init__(self, env_steps: int) -> None:
        """Starts one thread; a process does not end before it has."""
        self.env_steps = env_steps
        self.given_up = threading.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._tasks: dict[str, Future[None]] = {}

    def start(self, name: str, task: Any, *arguments: Any) -> None:
        """Adds a task, behind those before it."""
        self._tasks[name] = self._executor.submit(task, *arguments)

    @property
    def failed(self) -> bool:
        """Returns whether it is known by now that this rank could not do its part."""
        done = [task for task in self._tasks.values() if task.done() and not task.cancelled()]
        return any(task.exception() is not None for task in done)

    def finish(self, name: str) -> None:
        """Waits for a task.

        Raises:
          UserError: if it failed.
        """
        try:
            self._tasks[name].result()
        except (OSError, CheckpointError) as error:
            raise UserError(str(error)) from None

    def close(self, seconds: float = 0.0) -> None:
        """Ends the thread; what has not begun, or waits for another rank, is given up after some seconds."""
        wait(self._tasks.values(), seconds)
        self.given_up.set()
        self._executor.shutdown(cancel_futures=True)
