"""How fast a job of W workers is under each strategy, simulated from measured parts of one worker: pure functions.

Weak scaling: each worker has the environments, the rows and the updates of a whole job of one rank. A worker's own work
varies from iteration to iteration by a lognormal factor of the measured spread.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from parts.link_model import Link, allreduce_seconds

SYNCHRONISATIONS = 100
"""That are simulated of each strategy in lockstep."""


@dataclass(frozen=True)
class Work:
    """One worker's measured parts."""

    collect: float  # seconds of an iteration, bookkeeping included
    gradient: float  # seconds of an update, sampling included
    apply: float  # seconds of an update
    spread: float  # standard deviation of an iteration's own work, as a part of its mean
    updates: int  # K
    num_envs: int  # env steps of an iteration
    size: float  # bytes of a gradient
    slots: int = 2  # vectors of optimizer state: Adam's

    @property
    def seconds(self) -> float:
        """Returns what a worker does between two updates, but for the optimizer's step."""
        return self.collect / self.updates + self.gradient


def env_steps_per_second(strategy: str, work: Work, workers: int, link: Link, *, period: int, slowest: float) -> float:
    """Returns the env steps per second of a job.

    Args:
      strategy: allreduce, local, ps-sync or ps-async; a parameter server is one more process on one link.
      work: of a worker.
      workers: W.
      link: between them.
      period: H, updates between two averages of local.
      slowest: how many times the others' time one worker takes; 1 if all are alike.
    """
    rng = np.random.default_rng(0)
    per_update = work.num_envs / work.updates  # env steps of a worker
    if strategy == "ps-async":
        return per_update * _asynchronous(work, workers, link, slowest, rng)
    if strategy == "local":
        shape = (SYNCHRONISATIONS, max(1, period // work.updates), workers)
        own = period * _own_work(work.seconds + work.apply, work, shape, slowest, rng).mean(axis=1)  # [N, W]
        exchange = allreduce_seconds(workers, (1 + work.slots) * work.size, link)
        return per_update * workers * period / (own.max(axis=1).mean() + exchange)
    own = _own_work(work.seconds, work, (SYNCHRONISATIONS, workers), slowest, rng)  # [N, W]
    exchange = {
        "allreduce": allreduce_seconds(workers, work.size, link),
        "ps-sync": 2 * (link.latency + workers * work.size / link.bandwidth),
    }[strategy]
    return per_update * workers / (own.max(axis=1).mean() + exchange + work.apply)


def _own_work(
    seconds: float, work: Work, shape: tuple[int, ...], slowest: float, rng: np.random.Generator
) -> np.ndarray:
    """Draws float64 [..., W], the mean seconds of an iteration's updates; the first worker is the slow one."""
    drawn = seconds * _lognormal(work.spread, shape, rng)
    drawn[..., 0] *= slowest
    return drawn


def _lognormal(spread: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draws factors of mean 1 and this standard deviation."""
    variance = np.log1p(spread**2)
    return rng.lognormal(-variance / 2, np.sqrt(variance), shape)


def _asynchronous(work: Work, workers: int, link: Link, slowest: float, rng: np.random.Generator) -> float:
    """Returns updates per second of workers that wait for nothing but the server, which serves one at a time."""
    service = work.apply + 2 * work.size / link.bandwidth
    updates = 30 * workers + 1_000
    free, done = 0.0, np.zeros(updates)
    arrivals = [(float(first), worker) for worker, first in enumerate(rng.uniform(0.0, work.seconds, workers))]
    heapq.heapify(arrivals)
    factors = _lognormal(work.spread, (updates,), rng)
    for number in range(updates):
        arrival, worker = heapq.heappop(arrivals)
        free = max(free, arrival) + service
        done[number] = free
        own = work.seconds * factors[number] * (slowest if worker == 0 else 1.0)
        heapq.heappush(arrivals, (free + 2 * link.latency + own, worker))
    warm = updates // 3
    return float((updates - warm - 1) / (done[-1] - done[warm]))
