"""Laws of who hands how much to whom."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.checkpoint import reshard
from hvd_dqn.checkpoint.reshard import (
    SavedPart,
    evenly_spaced,
    interleaved,
    plan_transfers,
    read_share,
)
from hvd_dqn.replay.base import Columns
from hvd_dqn.replay.ring import RingReplay
from hvd_dqn.transition import Transition, TransitionForm

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


class _Share:
    """Takes rows, each once."""

    def __init__(self, like: Columns) -> None:
        self._like = like

    def begin(self, count: int) -> None:
        self._columns = [np.zeros((count, *column.shape[1:]), column.dtype) for column in self._like]
        self._arrived = np.zeros(count, np.bool_)

    def put(self, places: np.ndarray, columns: Columns) -> None:
        assert not self._arrived[places].any()
        self._arrived[places] = True
        for whole, column in zip(self._columns, columns, strict=True):
            whole[places] = column

    def whole(self) -> Transition:
        """Returns the rows, oldest first."""
        assert self._arrived.all()
        return Transition(*self._columns)


class _Ranks:
    """Ranks in threads of one process, which exchange rows."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=60.0)
        self._sent: list[list[np.ndarray]] = [[]] * size

    def shares(self, parts: list[SavedPart], read: Callable[[int], Columns]) -> list[Transition]:
        """Returns what each rank has after all have read their parts."""

        def share(rank: int) -> Transition:
            size = len(self._sent)
            beat, exchange = (lambda: None), (lambda rows, counts: self._exchange(rank, rows, counts))
            sink, like = _Share(read(len(parts))), read(len(parts))
            read_share(parts, read, like, sink, rank=rank, size=size, exchange=exchange, beat=beat)
            return sink.whole()

        with ThreadPoolExecutor(len(self._sent)) as executor:
            return list(executor.map(share, range(len(self._sent))))

    def _exchange(self, rank: int, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        assert sum(counts) == len(rows)
        self._sent[rank] = np.split(rows, np.cumsum(counts)[:-1])
        self._barrier.wait()
        received = np.concatenate([sent[rank] for sent in self._sent])
        self._barrier.wait()
        return received


@given(HELD, st.integers(1, 4), st.integers(1, 50), st.sampled_from([100, 1000, 10**6]))
def test_a_share_read_in_parts_has_every_nth_of_each_rank_oldest_first(
    held: list[int], size: int, rows: int, bytes_at_a_time: int
) -> None:
    """Transitions are numbered by age; a rank's place among the old ranks is the action. Each part is read once."""
    parts = [
        SavedPart(number, min(rows, count - start), count - 1 - start)
        for number, count in enumerate(held)
        for start in range(0, count, rows)
    ]
    reads: list[int] = []

    def read(index: int) -> Transition:
        number, count, oldest = parts[index] if index < len(parts) else (0, 0, 0)
        reads.extend([index] * (index < len(parts)))
        ages = oldest - np.arange(count)
        place = np.full(count, number, np.int32)
        return Transition(ages[:, None], place, ages.astype(np.float32), ages.astype(np.float32), ages[:, None])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reshard, "_BYTES_AT_A_TIME", bytes_at_a_time)
        shares = _Ranks(size).shares(parts, read)
    assert sorted(reads) == list(range(len(parts)))
    for rank, share in enumerate(shares):
        assert (np.diff(share.s_tm1[:, 0] * len(held) - share.a_tm1) < 0).all(), "of equal ages, the first rank's first"
        assert ((share.s_tm1[:, 0] + share.a_tm1) % size == rank).all()
        np.testing.assert_array_equal(share.r_t, share.s_t[:, 0])
    found = sorted((int(p), int(a)) for share in shares for p, a in zip(share.a_tm1, share.s_tm1[:, 0], strict=True))
    assert found == [(number, age) for number, count in enumerate(held) for age in range(count)]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_many_rows_are_shared_in_runs_that_are_spread_over_all_ages(size: int) -> None:
    """So that a rank's rows have nearly as few frames as before; shares stay equal, and of the same age."""
    held = [20_000, 9_001]
    parts = [
        SavedPart(number, len(block), int(block[0]))
        for number, count in enumerate(held)
        for block in np.array_split(np.arange(count - 1, -1, -1), 9)
    ]

    def read(index: int) -> Transition:
        number, count, oldest = parts[index] if index < len(parts) else (0, 0, 0)
        ages = (oldest - np.arange(count)).astype(np.float32)
        return Transition(ages[:, None], np.full(count, number, np.int32), ages, ages, ages[:, None])

    shares = _Ranks(size).shares(parts, read)
    for number, count in enumerate(held):
        ages = [share.r_t[share.a_tm1 == number] for share in shares]
        assert max(map(len, ages)) - min(map(len, ages)) <= 1
        for own in ages:
            assert np.count_nonzero(np.diff(own) != -1.0) < 2 * 64 + size
            assert own.mean() == pytest.approx(count / 2, rel=0.05)


def test_a_share_of_stacked_frames_has_hardly_more_frames_than_transitions() -> None:
    """Of three environments of one rank, every second row would need all of the frames."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 4004, 6, 6), np.uint8)
    stacks = np.lib.stride_tricks.sliding_window_view(frames, 4, axis=1).swapaxes(0, 1)  # [4001, 3, 6, 6, 4]
    s_tm1, s_t = (part.reshape(-1, 6, 6, 4) for part in (stacks[:-1], stacks[1:]))
    parts = [SavedPart(0, 400, oldest) for oldest in range(11_999, 0, -400)]

    def read(index: int) -> Transition:
        count = 400 if index < len(parts) else 0
        rows, r_t = slice(400 * index, 400 * index + count), np.zeros(count, np.float32)
        return Transition(s_tm1[rows], r_t.astype(np.int32), r_t, r_t, s_t[rows])

    for share in _Ranks(2).shares(parts, read):
        replay = RingReplay(
            6000, TransitionForm((6, 6, 4), np.dtype(np.uint8), (), stacked_frames=4), np.random.default_rng(0)
        )
        replay.add(share)
        packed = replay.rows(np.arange(6000)).frames
        assert packed is not None
        assert len(packed) < 1.3 * 6000


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=5), st.integers(0, 5000))
def test_rows_are_handed_over_once_and_in_runs(counts: list[int], kept: int) -> None:
    total = sum(counts) + kept
    places, takers = reshard._handed_over(np.array(counts), total)
    assert len(set(places.tolist())) == len(places)
    assert all(0 <= place < total for place in places)
    assert np.bincount(takers, minlength=len(counts)).tolist() == counts
    for taker, count in enumerate(counts):
        runs = 1 + np.count_nonzero(np.diff(np.sort(places[takers == taker])) != 1)
        assert runs <= max(count, 1)
        assert count < 2 * 64 * len(counts) or runs < 4 * 64 * len(counts)


def test_resharding_holds_the_share_once_and_a_half() -> None:
    """Of observations that fill 128 MB, read in 16 parts."""
    rows = 250
    parts = [SavedPart(number, rows, (8 - part) * rows - 1) for number in (0, 1) for part in range(8)]

    def read(index: int) -> Transition:
        count = rows if index < len(parts) else 0
        s = np.ones((count, 16_000), np.uint8)
        ones = np.ones(count, np.float32)
        return Transition(s, ones.astype(np.int32), ones, ones, s.copy())

    ranks = _Ranks(1)
    tracemalloc.start(1)
    try:
        (share,) = ranks.shares(parts, read)
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
