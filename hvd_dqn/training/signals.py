"""What one rank alone knows and all ranks must learn: it travels at the end of each iteration's gradient vector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Signals(NamedTuple):
    """One rank's signals, or their sums over the ranks, which are equal on all ranks."""

    stop: float = 0.0  # this rank was asked to stop
    stop_at_checkpoint: float = 0.0  # this rank was asked to stop at the next checkpoint
    fault: float = 0.0  # this rank cannot continue
    episodes: float = 0.0  # episodes that ended on this rank in this iteration
    save_failed: float = 0.0  # this rank could not write its part of the checkpoint in progress
    hosts_changed: float = 0.0  # this rank was notified of other hosts for the job
    slow: float = 0.0  # an iteration's learner steps take this rank a good part of the watchdog's limit

    def vector(self) -> np.ndarray:
        """Returns the signals as float32 [F]."""
        return np.array(self, np.float32)

    def joined(self, later: Signals) -> Signals:
        """Returns one rank's signals of both times: episodes are added, and what was signalled once stays so."""
        return Signals(*map(max, self, later))._replace(episodes=self.episodes + later.episodes)

    @classmethod
    def of(cls, vector: Iterable[float]) -> Signals:
        """Returns the signals of a vector [F]."""
        return cls(*map(float, vector))
