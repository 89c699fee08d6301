"""Laws of who hands how much to whom."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.checkpoint.reshard import evenly_spaced, interleaved, plan_transfers

HELD = st.lists(st.integers(0, 200), min_size=1, max_size=6)


@given(HELD)
def test_afterwards_all_hold_equally_much_and_nobody_both_gave_and_took(held: list[int]) -> None:
    plan = plan_transfers(held, capacity=10_000)
    after = np.array(held) - plan.sum(axis=1) + plan.sum(axis=0)
    assert after.max() - after.min() <= 1
    assert after.sum() == sum(held)
    assert (plan >= 0).all()
    assert (np.minimum(plan.sum(axis=0), plan.sum(axis=1)) == 0).all()


@given(HELD, st.integers(6, 300))
def test_beyond_the_capacity_nobody_is_given_more_than_its_share_of_it(held: list[int], capacity: int) -> None:
    plan = plan_transfers(held, capacity)
    after = np.array(held) - plan.sum(axis=1) + plan.sum(axis=0)
    assert after.min() >= min(sum(held), capacity) // len(held)


def test_a_newcomer_takes_from_those_that_hold_most() -> None:
    assert plan_transfers([600, 300, 0], capacity=900).tolist() == [[0, 0, 300], [0, 0, 0], [0, 0, 0]]


@given(st.integers(0, 100), st.integers(0, 100))
def test_indices_are_distinct_and_as_even_as_they_can_be(count: int, more: int) -> None:
    total = count + more
    indices = evenly_spaced(count, total)
    assert len(set(indices.tolist())) == count
    assert all(0 <= index < total for index in indices)
    gaps = np.diff(indices)
    assert count < 2 or gaps.max() - gaps.min() <= 1


def test_two_takers_get_items_of_all_ages() -> None:
    assert interleaved(np.array([2, 0, 4])).tolist() == [2, 0, 2, 2, 0, 2]
