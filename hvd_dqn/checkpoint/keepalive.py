"""Waiting for an object store without being taken for lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from hvd_dqn.checkpoint.storage import ObjectPath
from hvd_dqn.training.job import Job

_TELL_SECONDS = 0.1
Result = TypeVar("Result")


def patiently(job: Job, doing: str, action: Callable[[], Result]) -> Callable[[], Result]:
    """Runs each rank's action beside collectives in which the ranks tell one another that they live; a collective.

    Each call of an object store ends in time, but many may follow each other, and the watchdog would take a rank that
    waits for another's for stuck. A local file system may hang for ever: there nothing is run yet, and the watchdog
    stays the limit.

    Args:
      job: the job.
      doing: what takes the time, for the watchdog's message.
      action: this rank's; it must not use collectives.

    Returns:
      What returns the action's result, or raises its error.
    """
    if not isinstance(job.store.folder, ObjectPath):
        return action
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(action)
        while job.communicator.sum(np.array([float(not future.done())]))[0]:  # COLLECTIVE
            job.watchdog.beat(doing)
            wait([future], _TELL_SECONDS)
    return future.result
