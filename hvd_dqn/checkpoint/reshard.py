"""Reshards stored transitions over the ranks: all hold equally many, and each holds some of every age.

`read_share` takes them from a checkpoint that other ranks wrote; `rebalance` moves them between live ranks.
Rows cross the network in exchanges of bounded size. Consecutive rows stay together in runs: where observations stack
frames, a rank needs all frames of a row, and a run of rows shares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from hvd_dqn.replay.base import Columns
from hvd_dqn.shares import share

_BYTES_AT_A_TIME = 32 * 2**20
"""Most bytes that a rank receives in one exchange."""
_RUNS = 64
"""Runs of consecutive rows that a rank takes of another's; of fewer than twice as many rows it takes single ones."""

Exchange = Callable[[np.ndarray, list[int]], np.ndarray]


class Sink(Protocol):
    """Takes a rank's share of the rows; `hvd_dqn.replay.base.Refill` is one."""

    def begin(self, count: int) -> None:
        """Makes room for rows."""

    def put(self, places: np.ndarray, columns: Columns) -> None:
        """Takes rows [N] and their places int64 [N] among all of the share; 0 is the oldest."""


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
    sink: Sink,
    *,
    rank: int,
    size: int,
    exchange: Exchange,
    beat: Callable[[], None],
) -> None:
    """Gives a sink this rank's share of all saved transitions; a collective.

    Of each old rank, equally long runs go to the W ranks in turn, counted from the newest: the shares are equal to
    within one per old rank, and of the same age. Each part is read by one rank, which sends the rows of the others. In
    addition to the share, a rank holds one part and one exchange at a time.

    Args:
      parts: of all old ranks, those of each oldest first; equal on all ranks.
      read: returns the columns [rows] of a part by its index, or columns of no rows if it cannot, or if there is no
        such part. All ranks call it equally often.
      like: columns of any length, with the row shapes and dtypes.
      sink: takes the rows; those of parts that could not be read never arrive.
      rank: this rank.
      size: W.
      exchange: sends rows uint8 [N, R], those for rank 0 first and their numbers by rank, and returns those received.
      beat: is called before each read and each exchange.
    """
    old_ranks = 1 + max((part.rank for part in parts), default=0)
    stored = [sum(part.rows for part in parts if part.rank == old_rank) for old_rank in range(old_ranks)]
    at_a_time = _rows_at_a_time(like, size)

    def order_and_taker(part: SavedPart) -> tuple[np.ndarray, np.ndarray]:
        """Returns int64 [rows], distinct and higher for older rows, and int64 [rows], the ranks that take them."""
        age = part.oldest - np.arange(part.rows)
        order = age * old_ranks + (old_ranks - 1 - part.rank)  # of equal ages the first old rank's is first
        run = _run_length(stored[part.rank], size)
        in_runs = stored[part.rank] // (run * size) * (run * size)
        return order, (np.where(age < in_runs, age // run, age) + part.rank) % size

    own = [order[taker == rank] for order, taker in map(order_and_taker, parts)]
    arrivals = _Arrivals(sink, np.concatenate([np.zeros(0, np.int64), *own]))
    for start in range(0, len(parts), size):
        beat()
        held = read(start + rank)  # COLLECTIVE
        part = parts[start + rank] if len(held[0]) else SavedPart(0, 0, 0)
        order, taker = order_and_taker(part)
        for first in range(0, max(other.rows for other in parts[start : start + size]), at_a_time):
            beat()
            chosen = slice(first, first + at_a_time)
            columns = (order[chosen], *(column[chosen] for column in held))
            arrivals.put(_exchange(columns, taker[chosen], size, exchange))  # COLLECTIVE


def rebalance(
    read: Callable[[np.ndarray], Columns],
    counts: list[int],
    sink: Sink,
    *,
    rank: int,
    capacity: int,
    exchange: Exchange,
    beat: Callable[[], None],
) -> int:
    """Moves transitions from ranks that hold more than their share to those that hold less; a collective.

    A rank hands over runs that are evenly spaced among all that it holds, so that old and new ones are spread over the
    ranks alike.

    Args:
      read: returns copies of rows [N, ...] that this rank holds by their places int64 [N]; 0 is the oldest.
      counts: what each rank holds, equal on all ranks.
      sink: takes what this rank holds now.
      rank: this rank.
      capacity: transitions that all ranks together may hold.
      exchange: sends rows uint8 [N, R], those for rank 0 first and their numbers by rank, and returns those received.
      beat: is called before each exchange.

    Returns:
      How many moved between any two ranks.
    """
    plan, size = plan_transfers(counts, capacity), len(counts)

    def order(places: np.ndarray, giver: int, stays: bool = False) -> np.ndarray:
        """Returns int64 [N], distinct, higher for older rows; of equal ages, first those that stay, then rank 0's."""
        age = counts[giver] - 1 - places
        return age * (size + 1) + (size if stays else size - 1 - giver)

    given = [_handed_over(plan[giver], counts[giver]) for giver in range(size)]
    chosen, taker = given[rank]
    own = np.setdiff1d(np.arange(counts[rank]), chosen)
    received = [order(places[to == rank], giver) for giver, (places, to) in enumerate(given)]
    arrivals = _Arrivals(sink, np.concatenate([order(own, rank, stays=True), *received]))
    at_a_time = _rows_at_a_time(read(own[:0]), size)
    for start in range(0, len(own), at_a_time):
        beat()
        part = own[start : start + at_a_time]
        arrivals.put([order(part, rank, stays=True), *read(part)])
    for start in range(0, int(plan.sum(axis=1).max()), at_a_time):
        beat()
        part, to = chosen[start : start + at_a_time], taker[start : start + at_a_time]
        arrivals.put(_exchange((order(part, rank), *read(part)), to, size, exchange))  # COLLECTIVE
    return int(plan.sum())


class _Arrivals:
    """The rows of a share, whose order is known before they arrive."""

    def __init__(self, sink: Sink, order: np.ndarray) -> None:
        """Prepares for rows by their distinct numbers int64 [N], higher for older ones."""
        self._sink, self._order = sink, np.sort(order)
        sink.begin(len(order))

    def put(self, columns: Columns) -> None:
        """Takes rows; the first column is their numbers."""
        places = len(self._order) - 1 - np.searchsorted(self._order, columns[0])
        self._sink.put(places, columns[1:])


def _run_length(rows: int, size: int) -> int:
    """Returns how many consecutive rows stay together where W ranks take equally many of some rows."""
    return max(1, rows // (size * _RUNS))


def _handed_over(counts: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the rows that one rank hands over.

    Args:
      counts: int64 [W], rows for each rank.
      total: rows that the rank holds.

    Returns:
      int64 [sum of counts], places of the rows, and the ranks that take them; both in runs.
    """
    count = int(counts.sum())
    run = _run_length(count, max(1, np.count_nonzero(counts)))
    starts = run * evenly_spaced(count // run, total // run)
    places = (starts[:, None] + np.arange(run)).ravel()
    if len(places) < count:
        others = np.setdiff1d(np.arange(total), places)
        places = np.concatenate([places, others[evenly_spaced(count - len(places), len(others))]])
    takers = np.concatenate([np.repeat(interleaved(counts // run), run), interleaved(counts % run)])
    return places, takers


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


def _rows_at_a_time(like: Columns, size: int) -> int:
    """Returns how many rows each of W ranks may send at a time, were they all for one rank."""
    return max(1, _BYTES_AT_A_TIME // (size * _row_bytes((np.zeros(0, np.int64), *like))))


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
