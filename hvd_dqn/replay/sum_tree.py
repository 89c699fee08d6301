"""A tree of partial sums, to draw indices in proportion to their values (Schaul et al. 2016, section 3.3)."""

from __future__ import annotations

import numpy as np

_FANOUT = 16
"""Children of a node below the top level."""
_MOST_AT_THE_TOP = 4096
"""Nodes of the top level, which are searched by one running sum for all draws together."""
_TINY = np.finfo(np.float64).smallest_subnormal


class SumTree:
    """Values of which any may change; a draw takes time logarithmic in their number.

    A parent is the sum of its children, computed again on each change, so no rounding errors accumulate. Changes are
    passed upwards together when the sums are needed next.
    """

    def __init__(self, size: int) -> None:
        """Creates values of zero.

        Args:
          size: how many values.
        """
        self._levels: list[np.ndarray] = []
        """float64 [nodes] each, from the top level to the values."""
        while not self._levels or size > _MOST_AT_THE_TOP:
            size = -(-size // _FANOUT) if self._levels else size
            self._levels.insert(0, np.zeros(-(-size // _FANOUT) * _FANOUT))
        self._changed: list[np.ndarray] = []
        self._top = self._before = np.zeros(1)  # running sum over the top level, with and without a node's own value

    @property
    def total(self) -> float:
        """Returns the sum of all values."""
        self._update_sums()
        return float(self._top[-1])

    @property
    def nbytes(self) -> int:
        """Returns the bytes that it takes."""
        return sum(level.nbytes for level in self._levels)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """Returns the values float64 [...] at some indices [...]."""
        return self._levels[-1][indices]

    def set(self, indices: np.ndarray, values: np.ndarray | float) -> None:
        """Sets the values at some indices [...]; of equal indices the last one counts."""
        self._levels[-1][indices] = values
        self._changed.append(indices)

    def find(self, points: np.ndarray) -> np.ndarray:
        """Returns the indices int64 [N] where the running sum of the values reaches each point; never a value of zero.

        Args:
          points: float64 [N], above 0 and up to the total.
        """
        self._update_sums()
        node = np.searchsorted(self._top, points)  # [N]
        points = points - self._before.take(node)
        first = _FANOUT * np.arange(len(points))  # of each row in the flat arrays
        for level in self._levels[1:]:
            values = level.reshape(-1, _FANOUT).take(node, axis=0)  # [N, children]
            sums = values.cumsum(axis=1)
            # Rounding may put a point beyond the last child, or before the first one that is not zero.
            np.minimum(np.maximum(points, _TINY), sums[:, -1], out=points)
            child = (sums >= points[:, None]).argmax(axis=1)  # [N]
            place = first + child
            points -= sums.take(place) - values.take(place)
            node = node * _FANOUT + child
        return node

    def _update_sums(self) -> None:
        if not self._changed:
            return
        indices = np.concatenate([changed.ravel() for changed in self._changed])
        self._changed.clear()
        for children, parents in zip(self._levels[:0:-1], self._levels[-2::-1], strict=True):
            indices = indices // _FANOUT
            parents[indices] = children.reshape(-1, _FANOUT)[indices].sum(axis=1)
        self._top = self._levels[0].cumsum()
        self._before = self._top - self._levels[0]
