"""Laws of waiting for a store: a rank that waits for long is not taken for stuck, as long as the others are alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvd_dqn.checkpoint.lease import NoLease
from hvd_dqn.checkpoint.segments import SegmentWriter
from hvd_dqn.checkpoint.session import CheckpointSession
from hvd_dqn.checkpoint.storage import Location, open_location
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.watchdog import Watchdog
from hvd_dqn.errors import UserError


def _wait(folder: Location, action: Callable[[], Any], marks: Path) -> tuple[Any, list[int]]:
    """Waits in a job with a stall limit of 0.6 s; returns the outcome and what the watchdog did."""
    aborted: list[int] = []
    watchdog = Watchdog(0.6, 0, 1, marks, aborted.append)
    store: CheckpointStore[Any] = CheckpointStore(folder, 1)
    session = CheckpointSession(
        SingleCommunicator(), watchdog, store, NoLease(), SegmentWriter(folder, 0, 1), metrics=None
    )
    watchdog.start()
    try:
        outcome = session.with_keepalive("waiting", action)
        return outcome(), aborted
    finally:
        watchdog.stop()


def _slow() -> str:
    time.sleep(2.5)
    return "done"


def test_a_slow_store_is_no_lost_rank(tmp_path: Path) -> None:
    folder = open_location("memory://x/run", "--checkpoint-path")
    assert _wait(folder, _slow, tmp_path / "waiting") == ("done", [])


def test_a_local_file_system_that_hangs_runs_into_the_watchdog(tmp_path: Path) -> None:
    outcome, aborted = _wait(tmp_path, _slow, tmp_path / "waiting")
    assert outcome == "done"
    assert aborted


def test_an_error_is_raised_where_the_result_is_asked_for(tmp_path: Path) -> None:
    def fail() -> None:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        _wait(open_location("memory://x/run", "--checkpoint-path"), fail, tmp_path / "waiting")


def test_the_action_runs_in_the_calling_thread(tmp_path: Path) -> None:
    """Continuing an environment's episode runs its code, which may install signal handlers."""
    folder = open_location("memory://x/run", "--checkpoint-path")
    assert _wait(folder, threading.current_thread, tmp_path / "waiting")[0] is threading.current_thread()
