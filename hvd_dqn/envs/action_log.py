"""The actions of every environment's open episode, kept so that the episode can be replayed."""

from __future__ import annotations

import numpy as np

_FIRST_ROWS = 256


class ActionLog:
    """One row of actions per vector step, kept for as long as an open episode needs it.

    Appending costs one assignment on average; the memory is at most four times that of the longest open episode, in
    every environment.
    """

    def __init__(self, num_envs: int, dtype: np.dtype) -> None:
        """Starts without actions.

        Args:
          num_envs: E.
          dtype: integer type that holds every action.
        """
        self._num_envs = num_envs
        self._rows = np.zeros((0, num_envs), dtype)  # [rows, E], or [rows, E, J]
        self._used = 0
        self._begins = np.zeros(num_envs, np.int64)  # row of each open episode's first action

    @property
    def nbytes(self) -> int:
        """Returns the bytes that the rows take."""
        return self._rows.nbytes

    def append(self, actions: np.ndarray) -> None:
        """Keeps the actions [E, ...] of one vector step."""
        if self._used == len(self._rows):
            self._make_room(actions.shape)
        self._rows[self._used] = actions
        self._used += 1

    def begin(self, envs: np.ndarray) -> None:
        """Forgets the episodes of some environments (a mask or indices): their next action is a first one."""
        self._begins[envs] = self._used

    def of(self, env: int) -> np.ndarray:
        """Returns a copy of the actions [T, ...] of one environment's open episode."""
        return self._rows[self._begins[env] : self._used, env].copy()

    def restore(self, episodes: list[np.ndarray]) -> None:
        """Replaces everything by the actions [T_e, ...] of each environment's open episode."""
        longest = max(map(len, episodes))
        row = max(episodes, key=len).shape[1:]
        self._rows = np.zeros((2 * longest, self._num_envs, *row), self._rows.dtype)
        for env, actions in enumerate(episodes):
            self._begins[env] = longest - len(actions)
            if len(actions):
                self._rows[self._begins[env] : longest, env] = actions
        self._used = longest

    def _make_room(self, shape: tuple[int, ...]) -> None:
        """Drops the rows that no open episode needs; doubles the rows if half of them are needed."""
        oldest = int(self._begins.min())
        needed = self._rows[oldest : self._used]
        if 2 * len(needed) >= len(self._rows):
            self._rows = np.zeros((max(_FIRST_ROWS, 2 * len(self._rows)), *shape), self._rows.dtype)
        if len(needed):
            self._rows[: len(needed)] = needed
        self._used = len(needed)
        self._begins -= oldest
