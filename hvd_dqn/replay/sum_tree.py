"""A tree of partial sums, to draw indices in proportion to their values (Schaul et al. 2016, section 3.3)."""

from __future__ import annotations

import numpy as np

_FANOUT = 32
"""Children of a node. Wide nodes make few levels, each a few calls of NumPy for all draws together."""


class SumTree:
    """Values of which any may change; a draw takes time logarithmic in their number.

    A parent is the sum of its children, computed again on each change, so no rounding errors accumulate.
    """

    def __init__(self, size: int) -> None:
        """Creates values of zero.

        Args:
          size: how many values.
        """
        width = _FANOUT
        levels = []
        while True:
            levels.append(np.zeros(-(-size // _FANOUT) * _FANOUT))
            if size <= width:
                break
            size = -(-size // _FANOUT)
        self._levels = levels[::-1]
        """float64 [nodes] each, from the root's children to the values."""

    @property
    def total(self) -> float:
        """Returns the sum of all values."""
        return float(self._levels[0].sum())

    @property
    def nbytes(self) -> int:
        """Returns the bytes that it takes."""
        return sum(level.nbytes for level in self._levels)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """Returns the values float64 [...] at some indices [...]."""
        return self._levels[-1][indices]

    def set(self, indices: np.ndarray, values: np.ndarray | float) -> None:
        """Sets the values at some indices [N]; of equal indices the last one counts."""
        self._levels[-1][indices] = values
        for children, parents in zip(self._levels[:0:-1], self._levels[-2::-1], strict=True):
            indices = indices // _FANOUT
            parents[indices] = children.reshape(-1, _FANOUT)[indices].sum(axis=1)

    def find(self, points: np.ndarray) -> np.ndarray:
        """Returns the indices int64 [N] where the running sum of the values exceeds each point.

        Args:
          points: float64 [N], from 0 up to the total, which must be positive. They are overwritten.
        """
        node = np.zeros(len(points), np.int64)
        for level in self._levels:
            sums = level.reshape(-1, _FANOUT)[node].cumsum(axis=1)  # [N, children]
            # Rounding may put a point beyond its node's last child; a child of value zero is never found.
            np.minimum(points, np.nextafter(sums[:, -1], 0.0), out=points)
            child = (sums <= points[:, None]).sum(axis=1)
            rows = np.flatnonzero(child)
            points[rows] -= sums[rows, child[rows] - 1]
            node = node * _FANOUT + child
        return node
