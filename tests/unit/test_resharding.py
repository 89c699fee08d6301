"""Laws of who hands how much to whom."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.checkpoint.reshard import evenly_spaced, interleaved, plan_transfers, read_share
from hvd_dqn.transition import Transition

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


@given(HELD, st.integers(1, 4), st.integers(1, 50))
def test_a_share_read_in_parts_has_every_nth_of_each_rank_oldest_first(held: list[int], size: int, rows: int) -> None:
    """Transitions are numbered by age; a rank's place among the old ranks is the action."""

    def parts(number: int, count: int) -> Iterator[Transition]:
        for start in range(0, count, rows):
            ages = count - 1 - np.arange(start, min(count, start + rows))
            place = np.full(len(ages), number, np.int32)
            yield Transition(ages[:, None], place, ages.astype(np.float32), ages.astype(np.float32), ages[:, None])

    like = Transition(*(column[:0] for column in next(parts(0, 1))))
    readers = [(count, partial(parts, number, count)) for number, count in enumerate(held)]
    shares = [Transition(*read_share(readers, like, rank, size)) for rank in range(size)]
    for rank, share in enumerate(shares):
        assert (np.diff(share.s_tm1[:, 0]) <= 0).all()
        assert ((share.s_tm1[:, 0] + share.a_tm1) % size == rank).all()
        np.testing.assert_array_equal(share.r_t, share.s_t[:, 0])
    found = sorted((int(p), int(a)) for share in shares for p, a in zip(share.a_tm1, share.s_tm1[:, 0], strict=True))
    assert found == [(number, age) for number, count in enumerate(held) for age in range(count)]


def test_resharding_holds_the_share_once_and_a_half() -> None:
    """Of observations that fill 64 MB on each of two old ranks: the share of one of two ranks takes as much."""
    rows = 250

    def parts() -> Iterator[Transition]:
        for _ in range(8):
            s = np.ones((rows, 16_000), np.uint8)
            ones = np.ones(rows, np.float32)
            yield Transition(s, ones.astype(np.int32), ones, ones, s.copy())

    like = Transition(*(column[:0] for column in next(parts())))
    tracemalloc.start(1)
    try:
        share = read_share([(8 * rows, parts), (8 * rows, parts)], like, 0, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.75 * sum(column.nbytes for column in share)


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
