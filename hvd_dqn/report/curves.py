"""Curves of a group: its mean over the seeds with an interval, and each seed's own, with few enough points to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvd_dqn.statistics import bootstrap_band

Points = tuple[np.ndarray, np.ndarray]
"""x and y, float64 [N] each; x increases."""
MOST_POINTS = 500


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    group: int
    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    """Interval [N] at each point, None without one."""
    high: np.ndarray | None = None
    second: bool = False
    """Whether it is the second of two lines of its group."""
    seeds: tuple[Points, ...] = ()
    """The curve of each seed, of a line that is a mean."""


def mean_line(group: int, name: str, curves: Sequence[Points], most: int, *, second: bool = False) -> Line | None:
    """Returns the mean of some seeds' curves, up to where the shortest of them ends; None if none has a point.

    Args:
      group: the group's number.
      name: of the line.
      curves: one per seed.
      most: points that a line may have.
      second: as in `Line`.
    """
    curves = [downsampled(x, y, most) for x, y in curves if len(x)]
    if not curves:
        return None
    if len(curves) == 1:
        return Line(group, name, *curves[0], second=second)
    x, y = on_one_grid(curves)
    low, high = bootstrap_band(y)
    return Line(group, name, x, y.mean(axis=0), low, high, second, tuple(curves))


def downsampled(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> Points:
    """Returns the means over as many stretches of equal length as there may be points; few points as they are."""
    if len(x) <= most:
        return x, y
    ends = np.linspace(0, len(x), most + 1).astype(int)
    counts = np.diff(ends)
    return np.add.reduceat(x, ends[:-1]) / counts, np.add.reduceat(y, ends[:-1]) / counts


def on_one_grid(curves: Sequence[Points]) -> tuple[np.ndarray, np.ndarray]:
    """Brings curves to the same x: their own where it is equal as far as the shortest goes, otherwise interpolated.

    Returns:
      x float64 [N], y float64 [S, N].
    """
    shortest = min(len(x) for x, _ in curves)
    grid = curves[0][0][:shortest]
    if all(np.array_equal(x[:shortest], grid) for x, _ in curves):
        return grid, np.stack([y[:shortest] for _, y in curves])
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.linspace(first, max(first, last), shortest)
    return grid, np.stack([np.interp(grid, x, y) for x, y in curves])
