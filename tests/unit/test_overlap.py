"""Laws of the worker that overlaps learning with collecting."""

from __future__ import annotations

import sys
import threading

import pytest

from hvd_dqn.training.overlap import ThreadWorker


def test_the_switch_interval_is_lower_while_two_threads_overlap_and_as_before_afterwards() -> None:
    before = sys.getswitchinterval()
    worker = ThreadWorker()
    during = sys.getswitchinterval()
    worker.close()
    assert during < before
    assert sys.getswitchinterval() == before


def test_a_task_has_a_thread_of_its_own_and_raises_where_its_result_is_asked_for() -> None:
    worker = ThreadWorker()
    try:
        assert worker.submit(threading.get_ident).result() != threading.get_ident()
        failed = worker.submit(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            failed.result()
    finally:
        worker.close()
