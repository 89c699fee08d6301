"""Keeps the watchdogs of all ranks quiet while some rank waits for an object store."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.watchdog import Watchdog

_PERIOD_SECONDS = 0.1
Result = TypeVar("Result")


def with_keepalive(
    communicator: Communicator, watchdog: Watchdog, doing: str, action: Callable[[], Result]
) -> Callable[[], Result]:
    """Runs each rank's action in a thread and exchanges heartbeats until all ranks are done; a collective.

    Every call of an object store ends within a bounded time, but many calls may follow one another. Without the
    heartbeats the watchdog would end a rank that waits for another rank's calls.

    Args:
      communicator: the job's.
      watchdog: this rank's.
      doing: the activity, for the watchdog's message.
      action: this rank's action; it must not use collectives.

    Returns:
      A function that returns the action's result or raises its error.
    """
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(action)
        while communicator.sum(np.array([float(not future.done())]))[0]:  # COLLECTIVE
            watchdog.beat(doing)
            wait([future], _PERIOD_SECONDS)
    return future.result
