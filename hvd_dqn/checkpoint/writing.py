"""A checkpoint that a thread writes while training continues."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from hvd_dqn.errors import CheckpointError, UserError


class Writing:
    """A checkpoint in progress."""

    def __init__(self, env_steps: int, ranks: int) -> None:
        """Starts one thread for one of the ranks; a process does not end before it has."""
        self.env_steps, self.ranks = env_steps, ranks
        self.given_up = threading.Event()
        self.parts_written = threading.Event()
        """Set once every rank's part is known to be written."""
        self.rank_lost = False
        """Whether a rank was lost meanwhile: a part that is not seen then never comes."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._tasks: dict[str, Future[None]] = {}

    def start(self, name: str, task: Any, *arguments: Any) -> None:
        """Adds a task, behind those before it."""
        self._tasks[name] = self._executor.submit(task, *arguments)

    @property
    def failed(self) -> bool:
        """Returns whether a task of this rank has failed so far."""
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

    def close(self, seconds: float | None = None) -> None:
        """Gives up tasks that have not begun or that wait for another rank, and ends the thread.

        Args:
          seconds: how long to wait for the tasks before they are given up; returns then, even if one is still
            running. None gives them up at once and waits until the running one has returned.
        """
        if seconds is not None:
            wait(self._tasks.values(), seconds)
        self.given_up.set()
        self._executor.shutdown(wait=seconds is None, cancel_futures=True)
