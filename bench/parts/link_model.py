"""What a synchronous iteration takes, from measured parts: pure functions.

An iteration collects from E environments and makes K updates; each update computes a gradient of B rows, sums P
floats over W ranks and applies the optimizer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Link:
    """A network between ranks."""

    name: str
    latency: float  # seconds from one rank's send to the other's receive
    bandwidth: float  # bytes per second in each direction


LINKS = (
    Link("Ethernet 10 Gbit/s", 50e-6, 1.25e9),
    Link("Ethernet 100 Gbit/s", 20e-6, 12.5e9),
    Link("InfiniBand HDR", 2e-6, 25e9),
    Link("NVLink-class", 5e-6, 300e9),
)


def allreduce_seconds(ranks: int, size: float, link: Link) -> float:
    """Returns the faster of recursive doubling, log2(W) (a + n / b), and the ring, 2 (W - 1) (a + n / (W b)).

    Thakur et al. (2005), "Optimization of Collective Communication Operations in MPICH", sections 4.4 and 4.5.
    """
    if ranks == 1:
        return 0.0
    doubling = math.ceil(math.log2(ranks)) * (link.latency + size / link.bandwidth)
    ring = 2 * (ranks - 1) * (link.latency + size / (ranks * link.bandwidth))
    return min(doubling, ring)


@dataclass(frozen=True)
class Line:
    """A quantity that grows linearly: fixed + slope * n."""

    fixed: float
    slope: float

    def at(self, n: float) -> float:
        """Returns the value at n."""
        return self.fixed + self.slope * n


def fit_line(points: dict[float, float]) -> Line:
    """Fits a line through (n, value) by least squares of the relative errors; nothing costs less than 0."""
    n, values = np.array(list(points)), np.array(list(points.values()))
    slope, fixed = np.polyfit(n, values, 1, w=1.0 / values)
    if fixed < 0.0:
        slope, fixed = np.sum(n / values) / np.sum((n / values) ** 2), 0.0
    return Line(float(fixed), float(slope))


@dataclass(frozen=True)
class JobModel:
    """The measured parts of one rank's iteration, in seconds."""

    collect: Line  # per environment of this rank, acting, storing and bookkeeping included
    gradient: Line  # of one update, per row of this rank's batch, sampling included
    apply: float  # of one update
    size: float  # bytes of the exchanged vector

    def speed(self, ranks: int, num_envs: int, batch: int, updates: float, link: Link) -> float:
        """Returns env steps per second over a link."""
        exchange = allreduce_seconds(ranks, self.size, link)
        update = self.gradient.at(batch / ranks) + self.apply + exchange
        return num_envs / (self.collect.at(num_envs / ranks) + updates * update)
