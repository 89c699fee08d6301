"""Laws of ending a checkpoint that is being written."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from hvd_dqn.checkpoint.contents import Checkpoint
from hvd_dqn.checkpoint.lease import NoLease
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.checkpoint.writing import Writing
from hvd_dqn.errors import UserError


def test_closing_takes_no_longer_than_its_limit_whatever_is_being_written() -> None:
    writing, over = Writing(0, ranks=1), threading.Event()
    writing.start("part", over.wait, 20.0)
    writing.start("manifest", over.wait, 20.0)
    since = time.monotonic()
    writing.close(0.3)
    seconds = time.monotonic() - since
    over.set()
    assert 0.3 <= seconds < 5.0


def test_closing_without_a_limit_returns_when_nothing_is_written_any_more() -> None:
    writing, written = Writing(0, ranks=1), threading.Event()

    def write() -> None:
        assert writing.given_up.wait(20.0)
        time.sleep(0.2)
        written.set()

    writing.start("part", write)
    time.sleep(0.05)  # begun
    writing.close()
    assert written.is_set()


def test_a_thread_that_is_left_behind_completes_no_checkpoint_and_removes_nothing(tmp_path: Path) -> None:
    lock = NoLease()
    store = CheckpointStore(tmp_path, 1, lock.check)
    rank = RankState({}, 0, 0, 1, [], [], None)
    store.save(Checkpoint(1, None, {}, {"counters": {"env_steps": 1}}, [rank]), {})
    lock.release()
    with pytest.raises(UserError):
        store.save(Checkpoint(2, None, {}, {}, []), {})
    checkpoint, _ = CheckpointStore(tmp_path, 1).newest_good()
    assert checkpoint.env_steps == 1
