"""Reshards stored transitions over the ranks: all hold equally many, and each holds some of every age.

`read_share` takes them from a checkpoint that other ranks wrote; `rebalance` moves them between live ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from hvd_dqn.shares import share

_BYTES_AT_A_TIME = 32 * 2**20
"""Most bytes that a rank sends in one exchange."""

Exchange = Callable[[np.ndarray, list[int]], np.ndarray]
Columns = Sequence[np.ndarray]
"""All that a replay stores, a row per transition: arrays [N, ...], see `hvd_dqn.replay.base.columns_of`."""


def read_share(
    held: Sequence[tuple[int, Callable[[], Iterable[Columns]]]], like: Columns, rank: int, size: int
) -> list[np.ndarray]:
    """Returns this rank's share of all saved transitions, oldest first.

    Every W-th transition of each old rank, counted from the newest, goes to one of W ranks: the shares are equal to
    within one per old rank, and of the same age. In addition to the share, one part is held at a time.

    Args:
      held: how many transitions each old rank held, and what reads them in parts, columns [N], oldest first.
      like: columns of any length, with the row shapes and dtypes.
      rank: this rank.
      size: W.
    """
    ages, parts = [np.zeros(0, np.int64)], [[column[:0] for column in like]]
    for number, (count, read) in enumerate(held):
        oldest = count - 1
        for part in read():
            age = oldest - np.arange(len(part[0]))
            oldest -= len(part[0])
            mine = (age + number) % size == rank
            parts.append([column[mine] for column in part])
            ages.append(age[mine])
    return _oldest_first(ages, parts)


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
        part = part[np.argsort(to, kind="stable")]
        rows = _to_rows((age[part], *(column[part] for column in held)))
        amounts = np.bincount(to, minlength=len(counts))
        received.append(exchange(rows, amounts.tolist()))  # COLLECTIVE
    own = np.ones(len(age), np.bool_)
    own[chosen] = False
    parts = [[age[own], *(column[own] for column in held)]]
    parts += [_from_rows(rows, (age, *held)) for rows in received]
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


def _to_rows(columns: tuple[np.ndarray, ...]) -> np.ndarray:
    """Returns uint8 [N, R]: the bytes of arrays [N, ...], one row after the other."""
    count = len(columns[0])
    if count == 0:
        return np.zeros((0, _row_bytes(columns)), np.uint8)
    return np.concatenate([np.ascontiguousarray(c).reshape(count, -1).view(np.uint8) for c in columns], axis=1)


def _from_rows(rows: np.ndarray, like: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Returns what `_to_rows` was given; `like` has the columns' dtypes and row shapes."""
    columns, start = [], 0
    for column in like:
        width = _row_bytes((column,))
        part = np.ascontiguousarray(rows[:, start : start + width])
        columns.append(part.view(column.dtype).reshape(len(rows), *column.shape[1:]))
        start += width
    return columns


def _row_bytes(columns: tuple[np.ndarray, ...]) -> int:
    """Returns R, the bytes of one row of arrays [N, ...]."""
    return sum(int(np.prod(column.shape[1:])) * column.itemsize for column in columns)
