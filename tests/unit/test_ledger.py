"""The coordinator's counts: clocks that stay within their bound, amounts that are global, and synchronisations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_dqn.counters import Counters
from hvd_dqn.learner.ledger import Ledger, Rules, Staleness

RULES: dict[str, Any] = {
    "total_env_steps": 1000,
    "periods": (100, 0),
    "global_batch_size": 12,
    "target_update_period": 5,
}


def ledger(workers: int = 3, **rules: Any) -> Ledger:
    """Returns the ledger of a job that has just begun."""
    return Ledger(Rules(**RULES | rules), set(range(workers)))


@pytest.mark.parametrize("staleness", [1, 3])
def test_no_worker_is_further_ahead_than_allowed_and_the_slowest_may_always_continue(staleness: int) -> None:
    """Whatever the order in which workers ask."""
    counts, rng, largest = ledger(max_staleness=staleness), np.random.default_rng(5), 0
    for worker in rng.choice(3, 5000, p=[0.7, 0.2, 0.1]).tolist():
        slowest = min(counts.living, key=lambda other: counts.clocks.get(other, 0))
        assert counts.permits(slowest)
        if counts.permits(worker):
            counts.applied(worker, 4)
        clocks = [counts.clocks.get(other, 0) for other in counts.living]
        largest = max(largest, max(clocks) - min(clocks))
    assert largest == staleness


def test_a_lost_worker_holds_no_other_back() -> None:
    counts = ledger(max_staleness=1)
    counts.applied(0, 4)
    counts.applied(1, 4)
    assert not counts.permits(0)
    counts.lose(2)
    assert counts.permits(0)
    assert counts.due


def test_learner_steps_are_rows_over_the_global_batch_and_move_the_target() -> None:
    """Sixty rows are five learner steps of twelve: the target follows once, with the last of them."""
    counts = ledger()
    follows = [counts.applied(worker, 4) for worker in (0, 1, 1, 2) * 4]
    assert counts.rows == 64
    assert counts.counters.learner_steps == 5
    assert [number for number, yes in enumerate(follows, 1) if yes] == [15]


@pytest.mark.parametrize(
    ("env_steps", "wants_others", "due"),
    [(99, False, False), (100, False, True), (8, True, True), (1000, False, True)],
)
def test_the_workers_synchronise_when_a_period_has_passed_or_one_has_a_signal(
    env_steps: int, wants_others: bool, due: bool
) -> None:
    counts = ledger()
    counts.report(env_steps, 0, wants_others)
    assert counts.due == due
    counts.synchronise()
    assert not counts.due
    counts.report(1, 2, False)
    assert counts.due == (env_steps in (99, 1000))
    assert counts.counters.skipped_updates == 2


def test_synchronisations_are_numbered_once_however_often_they_are_asked_for() -> None:
    counts = ledger()
    for _ in range(3):
        counts.report(0, 0, True)
    assert (counts.announced, counts.made) == (1, 0)
    counts.synchronise()
    assert (counts.announced, counts.made) == (1, 1)


def test_staleness_is_counted() -> None:
    staleness = Staleness()
    for value in (0, 2, 2, 5):
        staleness.note(value)
    assert staleness.summary() == (4, 9, 5)
    assert staleness.histogram == {0: 1, 2: 2, 5: 1}
    assert Staleness().summary() == (0, 0, 0)


@pytest.mark.parametrize(("learner_steps", "left"), [(7, 0), (400, 0)])
def test_a_run_of_asynchronous_workers_owes_no_learner_steps_to_a_resume(learner_steps: int, left: int) -> None:
    """Their pace is their own: whether fewer or more were made than the env steps earned, none is due, nor less."""
    counters = Counters(env_steps=300, learner_steps=learner_steps, learning_from_env_step=100)
    counters.count_from_here()
    assert counters.learner_steps_due(1) == left
    counters.env_steps += 4
    assert counters.learner_steps_due(1) == 4


def test_learning_that_has_not_begun_still_begins_where_it_would() -> None:
    counters = Counters(env_steps=50, learning_from_env_step=100)
    counters.count_from_here()
    assert counters.learning_from_env_step == 100
