"""Reshards stored transitions over the ranks: all hold equally many, and each holds some of every age.

`read_share` takes them from a checkpoint that other ranks wrote; `rebalance` moves them between live ranks.
Rows cross the network in exchanges of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hvd_dqn.shares import share

_BYTES_AT_A_TIME = 32 * 2**20
"""Most bytes that a rank sends in one exchange."""

Exchange = Callable[[np.ndarray, list[int]], np.ndarray]
Columns = Sequence[np.ndarray]
"""All that a replay stores, a row per transition: arrays [N, ...], see `hvd_dqn.replay.base.columns_of`."""


class SavedPart(NamedTuple):
    """Consecutive transitions that one of the old ranks held, in one file."""

    rank: int
    """The old rank."""
    rows: int
    oldest: int
    """Age of the first of them: how many transitions of its rank were newer."""


def read_share(
    parts: Sequence[SavedPart],
    read: Callable[[int], Columns],
    like: Columns,
    *,
    rank: int,
    size: int,
    exchange: Exchange,
    beat: Callable[[], None],
) -> list[np.ndarray]:
    """Returns this rank's share of all saved transitions, oldest first; a collective.

    Every W-th transition of each old rank, counted from the newest, goes to one of W ranks: the shares are equal to
    within one per old rank, and of the same age. Each part is read by one rank, which sends the rows of the others. In
    addition to the share, a rank holds one part and one exchange at a time.

    Args:
      parts: of all old ranks, those of each oldest first; equal on all ranks.
      read: returns the columns [rows] of a part by its index, or columns of no rows if it cannot, or if there is no
        such part. All ranks call it equally often.
      like: columns of any length, with the row shapes and dtypes.
      rank: this rank.
      size: W.
      exchange: sends rows uint8 [N, R], those for rank 0 first and their numbers by rank, and returns those received.
      beat: is called before each read and each exchange.
    """
    old_ranks = 1 + max((part.rank for part in parts), default=0)
    at_a_time = max(1, _BYTES_AT_A_TIME // _row_bytes((np.zeros(0, np.int64), *like)))
    places, received = [np.zeros(0, np.int64)], [[column[:0] for column in like]]
    for start in range(0, len(parts), size):
        beat()
        held = read(start + rank)  # COLLECTIVE
        part = parts[start + rank] if len(held[0]) else SavedPart(0, 0, 0)
        age = part.oldest - np.arange(part.rows)
        place = age * old_ranks + (old_ranks - 1 - part.rank)  # distinct; of equal ages the first old rank's is first
        for first in range(0, max(other.rows for other in parts[start : start + size]), at_a_time):
            beat()
            chosen = slice(first, first + at_a_time)
            columns = (place[chosen], *(column[chosen] for column in held))
            got = _exchange(columns, (age[chosen] + part.rank) % size, size, exchange)  # COLLECTIVE
            places.append(got[0])
            received.append(got[1:])
    return _oldest_first(places, received)


def rebalance(
    held: Columns, counts: list[int], *, rank: int, capacity: int, exchange: Exchange, beat: Callable[[], None]
) -> tuple[list[np.ndarray], int]:
    """Moves transitions from ranks that hold more than their share to those that hold less; a collective.

    A rank hands over every n-th that it holds, so that old and new ones are spread over the ranks alike.

    Args:
      held: what this rank holds, columns [N], oldest first.
      counts: what each rank holds, equal on all ranks.
      rank: this rank.
      capacity: transitions that all ranks together may hold.
      exchange: sends rows uint8 [N, R], those for rank 0 first and their numbers by rank, and returns those received.
      beat: is called before each exchange.

    Returns:
      What this rank holds now, oldest first, and how many moved between any two ranks.
    """
    plan = plan_transfers(counts, capacity)
    age = np.arange(len(held[0]))[::-1]  # how many transitions are newer than each
    chosen = evenly_spaced(int(plan[rank].sum()), len(age))
    taker = interleaved(plan[rank])
    at_a_time = max(1, _BYTES_AT_A_TIME // _row_bytes((age, *held)))
    received = []
    for start in range(0, int(plan.sum(axis=1).max()), at_a_time):
        beat()
        part, to = chosen[start : start + at_a_time], taker[start : start + at_a_time]
        columns = (age[part], *(column[part] for column in held))
        received.append(_exchange(columns, to, len(counts), exchange))  # COLLECTIVE
    own = np.ones(len(age), np.bool_)
    own[chosen] = False
    parts = [[age[own], *(column[own] for column in held)]]
    parts += received
    return _oldest_first([part[0] for part in parts], [part[1:] for part in parts]), int(plan.sum())


def plan_transfers(held: list[int], capacity: int) -> np.ndarray:
    """Returns the fewest items that have to move until every rank holds its share.

    Args:
      held: what each of W ranks holds.
      capacity: the most that all ranks together may hold; where they hold more, the rest stays where it is.

    Returns:
      int64 [W, W], items that rank (row) hands to rank (column); the diagonal is 0.
    """
    size = len(held)
    wanted = [share(min(sum(held), capacity), rank, size) for rank in range(size)]
    plan = np.zeros((size, size), np.int64)
    giver = 0
    for taker in range(size):
        missing = wanted[taker] - held[taker]
        while missing > 0:
            spare = held[giver] - wanted[giver] - plan[giver].sum()
            if spare <= 0:
                giver += 1
                continue
            plan[giver, taker] = min(spare, missing)
            missing -= plan[giver, taker]
    return plan


def evenly_spaced(count: int, total: int) -> np.ndarray:
    """Returns int64 [count], evenly spaced indices below `total`, in rising order."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // max(1, 2 * count)


def interleaved(counts: np.ndarray) -> np.ndarray:
    """Returns int64 [sum of counts], number r counts[r] times, each spread evenly over the whole."""
    labels = np.repeat(np.arange(len(counts)), counts)
    positions = np.concatenate([(np.arange(count) + 0.5) / max(1, count) for count in counts])
    return labels[np.argsort(positions, kind="stable")]


def _exchange(columns: Columns, to: np.ndarray, size: int, exchange: Exchange) -> list[np.ndarray]:
    """Sends each row of columns [N, ...] to a rank, int64 [N], and returns the columns received; a collective."""
    order = np.argsort(to, kind="stable")
    rows = _to_rows([column[order] for column in columns])
    received = exchange(rows, np.bincount(to, minlength=size).tolist())  # COLLECTIVE
    return _from_rows(received, columns)


def _oldest_first(ages: list[np.ndarray], parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Joins columns [N_i, ...] of several parts in the order of their ages [N_i], the highest first."""
    place = np.argsort(np.argsort(-np.concatenate(ages), kind="stable"))
    starts = np.cumsum([0, *map(len, ages)])
    columns = []
    for number, like in enumerate(parts[0]):
        column = np.empty((len(place), *like.shape[1:]), like.dtype)
        for start, part in zip(starts, parts, strict=False):
            column[place[start : start + len(part[number])]] = part[number]
            part[number] = like[:0]  # frees it: never all parts and all columns at a time
        columns.append(column)
    return columns


def _to_rows(columns: Columns) -> np.ndarray:
    """Returns uint8 [N, R]: the bytes of arrays [N, ...], one row after the other."""
    count = len(columns[0])
    if count == 0:
        return np.zeros((0, _row_bytes(columns)), np.uint8)
    return np.concatenate([np.ascontiguousarray(c).reshape(count, -1).view(np.uint8) for c in columns], axis=1)


def _from_rows(rows: np.ndarray, like: Columns) -> list[np.ndarray]:
    """Returns what `_to_rows` was given; `like` has the columns' dtypes and row shapes."""
    columns, start = [], 0
    for column in like:
        width = _row_bytes((column,))
        part = np.ascontiguousarray(rows[:, start : start + width])
        columns.append(part.view(column.dtype).reshape(len(rows), *column.shape[1:]))
        start += width
    return columns


def _row_bytes(columns: Columns) -> int:
    """Returns R, the bytes of one row of arrays [N, ...]."""
    return sum(int(np.prod(column.shape[1:])) * column.itemsize for column in columns)
