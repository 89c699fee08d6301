"""The split of a global amount over the ranks."""

from __future__ import annotations


def share(amount: int, rank: int, size: int) -> int:
    """Returns rank's part of a global amount: the first `amount % size` ranks take one more."""
    return amount // size + (rank < amount % size)


def first_index(amount: int, rank: int, size: int) -> int:
    """Returns the global index of rank's first item: the sum of the lower ranks' shares."""
    return rank * (amount // size) + min(rank, amount % size)
