"""Other libraries' replays behind one interface; run by the peers' Python.

Each library is told to store frames as often as it can: once in cpprb and Tianshou, four times in Stable-Baselines3.

replays.py LIBRARY uniform|prioritized CAPACITY vectors|frames
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.remove(str(Path(__file__).parent))  # its files are named like libraries
from comparison.replay_timing import ADDED, DTYPES, SHAPES, Subject, measure


class Cpprb:
    """cpprb's buffers: C++ segment trees. Its frames are those of one environment, whose stacks overlap in memory."""

    def __init__(self, capacity: int, prioritized: bool, observations: str) -> None:
        """Creates a buffer."""
        import cpprb

        observation = {"shape": SHAPES[observations], "dtype": DTYPES[observations]}
        fields = {"obs": observation, "act": {"dtype": np.int64}, "rew": {}, "done": {}}
        frames = {"next_of": "obs", "stack_compress": "obs"} if observations == "frames" else {}
        if not frames:
            fields["next_obs"] = observation
        kind = cpprb.PrioritizedReplayBuffer if prioritized else cpprb.ReplayBuffer
        self._buffer = kind(capacity, fields, **frames)
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

    def __init__(self, capacity: int, prioritized: bool, observations: str) -> None:
        """Creates a buffer."""
        from gymnasium import spaces
        from stable_baselines3.common.buffers import ReplayBuffer

        assert not prioritized
        dtype, images = DTYPES[observations], observations == "frames"
        low, high = (0, 255) if images else (-np.inf, np.inf)
        self._buffer = ReplayBuffer(
            capacity,
            spaces.Box(low, high, SHAPES[observations], dtype),
            spaces.Discrete(4),
            "cpu",
            n_envs=ADDED,
            optimize_memory_usage=images,
            handle_timeout_termination=not images,
        )
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
    """Tianshou's vector buffers. Its frames are stacked along the first dimension."""

    def __init__(self, capacity: int, prioritized: bool, observations: str) -> None:
        """Creates a buffer."""
        from tianshou.data import Batch, PrioritizedVectorReplayBuffer, VectorReplayBuffer

        self._batch, self._frames = Batch, observations == "frames"
        frames = {"stack_num": 4, "ignore_obs_next": True, "save_only_last_obs": True} if self._frames else {}
        if prioritized:
            self._buffer: Any = PrioritizedVectorReplayBuffer(capacity, ADDED, alpha=0.6, beta=0.4, **frames)
        else:
            self._buffer = VectorReplayBuffer(capacity, ADDED, **frames)

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Stores transitions."""
        c = columns
        obs, obs_next = (np.moveaxis(c[name], -1, 1) if self._frames else c[name] for name in ("obs", "next_obs"))
        self._buffer.add(
            self._batch(
                obs=obs,
                act=c["act"],
                rew=c["rew"],
                obs_next=obs_next,
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
    library, kind, capacity, observations = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    subject: Subject = LIBRARIES[library](capacity, kind == "prioritized", observations)
    measure(subject, capacity, kind == "prioritized", observations, one_environment=library == "cpprb")
