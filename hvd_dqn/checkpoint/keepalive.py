"""Keeps the watchdogs of all ranks quiet while some rank waits for an object store."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.watchdog import Watchdog

_PERIOD_SECONDS = 0.1
Result = TypeVar("Result")


def with_keepalive(
    communicator: Communicator, watchdog: Watchdog, doing: str, action: Callable[[], Result]
) -> Callable[[], Result]:
    """Runs each rank's action and exchanges heartbeats in a thread until all ranks are done; a collective.

    The action runs in the calling thread, on which an environment's code may depend (signals, graphics contexts).
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
    own: Future[Result] = Future()

    def exchange() -> None:
        while communicator.sum(np.array([float(not own.done())]))[0]:  # COLLECTIVE
            watchdog.beat(doing)
            wait([own], _PERIOD_SECONDS)

    with ThreadPoolExecutor(1) as executor:
        exchanging = executor.submit(exchange)
        try:
            own.set_result(action())
        except BaseException as error:
            own.set_exception(error)
    exchanging.result()
    return own.result
