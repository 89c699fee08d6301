"""Other libraries' replays behind one interface; run by the peers' Python.

replays.py LIBRARY uniform|prioritized CAPACITY
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.remove(str(Path(__file__).parent))  # its files are named like libraries
from comparison.replay_timing import ADDED, OBSERVATION, Subject, measure


class Cpprb:
    """cpprb's buffers: C++ segment trees."""

    def __init__(self, capacity: int, prioritized: bool) -> None:
        """Creates a buffer."""
        import cpprb

        fields = {"obs": {"shape": OBSERVATION}, "act": {"dtype": np.int64}, "rew": {}, "done": {}}
        fields["next_obs"] = {"shape": OBSERVATION}
        kind = cpprb.PrioritizedReplayBuffer if prioritized else cpprb.ReplayBuffer
        self._buffer = kind(capacity, fields)
        self._prioritized = prioritized

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Stores transitions."""
        self._buffer.add(**columns)

    def sample(self, count: int) -> Any:
        """Draws a batch."""
        batch = self._buffer.sample(count)
        return batch["indexes"] if self._prioritized else None

    def update(self, drawn: Any, priorities: np.ndarray) -> None:
        """Sets priorities."""
        self._buffer.update_priorities(drawn, priorities)


class StableBaselines:
    """Stable-Baselines3's buffer of 64 environments; uniform alone."""

    def __init__(self, capacity: int, prioritized: bool) -> None:
        """Creates a buffer."""
        from gymnasium import spaces
        from stable_baselines3.common.buffers import ReplayBuffer

        assert not prioritized
        observations = spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
        self._buffer = ReplayBuffer(capacity, observations, spaces.Discrete(4), "cpu", n_envs=ADDED)
        self._infos: list[dict[str, Any]] = [{} for _ in range(ADDED)]

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Stores transitions."""
        c = columns
        self._buffer.add(c["obs"], c["next_obs"], c["act"], c["rew"], c["done"], self._infos)

    def sample(self, count: int) -> Any:
        """Draws a batch."""
        return self._buffer.sample(count)

    def update(self, drawn: Any, priorities: np.ndarray) -> None:
        """Does not exist."""


class Tianshou:
    """Tianshou's vector buffers."""

    def __init__(self, capacity: int, prioritized: bool) -> None:
        """Creates a buffer."""
        from tianshou.data import Batch, PrioritizedVectorReplayBuffer, VectorReplayBuffer

        self._batch = Batch
        if prioritized:
            self._buffer: Any = PrioritizedVectorReplayBuffer(capacity, ADDED, alpha=0.6, beta=0.4)
        else:
            self._buffer = VectorReplayBuffer(capacity, ADDED)

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Stores transitions."""
        c = columns
        self._buffer.add(
            self._batch(
                obs=c["obs"],
                act=c["act"],
                rew=c["rew"],
                obs_next=c["next_obs"],
                terminated=c["done"],
                truncated=np.zeros(len(c["done"]), np.bool_),
                info={},
            )
        )

    def sample(self, count: int) -> Any:
        """Draws a batch."""
        return self._buffer.sample(count)[1]

    def update(self, drawn: Any, priorities: np.ndarray) -> None:
        """Sets priorities."""
        self._buffer.update_weight(drawn, priorities)


LIBRARIES: dict[str, type] = {"cpprb": Cpprb, "Stable-Baselines3": StableBaselines, "Tianshou": Tianshou}

if __name__ == "__main__":
    library, kind, capacity = sys.argv[1], sys.argv[2], int(sys.argv[3])
    subject: Subject = LIBRARIES[library](capacity, kind == "prioritized")
    measure(subject, capacity, kind == "prioritized")
