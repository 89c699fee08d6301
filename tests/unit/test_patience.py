"""A law of waiting for a store: a rank that waits for long lives, as long as the others do."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hvd_dqn.checkpoint.keepalive import patiently
from hvd_dqn.checkpoint.storage import Location, open_location
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.watchdog import Watchdog
from hvd_dqn.errors import UserError
from hvd_dqn.training.job import Job


def _wait(folder: Location, seconds: float, marks: Path) -> tuple[Any, list[int]]:
    """Waits in a job with a stall limit of 0.6 s; returns the outcome and what the watchdog did."""

    def slow() -> str:
        time.sleep(seconds)
        return "done"

    aborted: list[int] = []
    watchdog = Watchdog(0.6, 0, 1, marks, aborted.append)
    parts = SimpleNamespace(store=SimpleNamespace(folder=folder), communicator=SingleCommunicator(), watchdog=watchdog)
    watchdog.start()
    try:
        outcome = patiently(cast(Job, parts), "waiting", slow)
        return outcome(), aborted
    finally:
        watchdog.stop()


def test_a_slow_store_is_no_lost_rank(tmp_path: Path) -> None:
    assert _wait(open_location("memory://x/run", "--checkpoint-path"), 2.5, tmp_path / "waiting") == ("done", [])


def test_a_local_file_system_that_hangs_meets_the_watchdog(tmp_path: Path) -> None:
    outcome, aborted = _wait(tmp_path, 2.5, tmp_path / "waiting")
    assert outcome == "done"
    assert aborted


def test_an_error_comes_out_where_it_is_asked_for(tmp_path: Path) -> None:
    def fail() -> None:
        raise UserError("no")

    folder = open_location("memory://x/run", "--checkpoint-path")
    watchdog = Watchdog(0.0, 0, 1, tmp_path, lambda code: None)
    job = SimpleNamespace(store=SimpleNamespace(folder=folder), communicator=SingleCommunicator(), watchdog=watchdog)
    outcome = patiently(cast(Job, job), "failing", fail)
    with pytest.raises(UserError, match="no"):
        outcome()
