"""Who hands how much to whom when amounts that ranks hold are to become equal."""

from __future__ import annotations

import numpy as np

from hvd_dqn.shares import share


def transfers(held: list[int], capacity: int) -> np.ndarray:
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


def spread(count: int, total: int) -> np.ndarray:
    """Returns int64 [count], evenly spaced places among `total`, in rising order."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // max(1, 2 * count)


def interleaved(counts: np.ndarray) -> np.ndarray:
    """Returns int64 [sum of counts], number r counts[r] times, each spread evenly over the whole."""
    labels = np.repeat(np.arange(len(counts)), counts)
    places = np.concatenate([(np.arange(count) + 0.5) / max(1, count) for count in counts])
    return labels[np.argsort(places, kind="stable")]
