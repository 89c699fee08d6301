"""Deals stored transitions out over the ranks, so that all hold equally many and a newcomer has its share at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hvd_dqn.checkpoint.transfers import interleaved, spread, transfers
from hvd_dqn.transition import Transition

_BYTES_AT_A_TIME = 32 * 2**20
"""What a rank sends in one exchange, at most."""

Exchange = Callable[[np.ndarray, list[int]], np.ndarray]


def deal_out(
    held: Transition, counts: list[int], *, rank: int, capacity: int, exchange: Exchange, beat: Callable[[], None]
) -> tuple[Transition, int]:
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
    plan = transfers(counts, capacity)
    given = int(plan[rank].sum())
    age = np.arange(len(held.a_tm1))[::-1]  # 0 is the newest
    chosen = spread(given, len(age))
    taker = interleaved(plan[rank])
    at_a_time = max(1, _BYTES_AT_A_TIME // row_bytes((age, *held)))
    received = []
    for start in range(0, int(plan.sum(axis=1).max()), at_a_time):
        beat()
        part, to = chosen[start : start + at_a_time], taker[start : start + at_a_time]
        part = part[np.argsort(to, kind="stable")]
        rows = to_rows((age[part], *(column[part] for column in held)))
        amounts = np.bincount(to, minlength=len(counts))
        received.append(exchange(rows, amounts.tolist()))  # COLLECTIVE
    own = np.ones(len(age), np.bool_)
    own[chosen] = False
    parts = [[age[own], *(column[own] for column in held)]]
    parts += [from_rows(rows, (age, *held)) for rows in received]
    ages, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-ages, kind="stable")
    return Transition(*(column[order] for column in columns)), int(plan.sum())


def to_rows(columns: tuple[np.ndarray, ...]) -> np.ndarray:
    """Returns uint8 [N, R]: the bytes of arrays [N, ...], one row after the other."""
    count = len(columns[0])
    if count == 0:
        return np.zeros((0, row_bytes(columns)), np.uint8)
    return np.concatenate([np.ascontiguousarray(c).reshape(count, -1).view(np.uint8) for c in columns], axis=1)


def from_rows(rows: np.ndarray, like: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Returns what `to_rows` was given; `like` tells the columns' dtypes and shapes."""
    columns, start = [], 0
    for column in like:
        width = row_bytes((column,))
        part = np.ascontiguousarray(rows[:, start : start + width])
        columns.append(part.view(column.dtype).reshape(len(rows), *column.shape[1:]))
        start += width
    return columns


def row_bytes(columns: tuple[np.ndarray, ...]) -> int:
    """Returns R, the bytes of one row of arrays [N, ...]."""
    return sum(int(np.prod(column.shape[1:])) * column.itemsize for column in columns)
