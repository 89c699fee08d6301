"""The treasure maze: a grid world whose exact Q* the tests compare with the learned one.

Reaching the treasure gives a reward of 100 and ends the episode; all other steps give 0. Moves are deterministic, so
value iteration computes Q*(s, a) exactly.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

MAZE_ID = "hvd_dqn/TreasureMaze-v0"
TREASURE_REWARD = 100.0

DEFAULT_MAP = (
    "..#..",
    "..#..",
    "...#.",
    ".#...",
    ".#.#T",
)
"""Rows of the grid: '.' a free cell, '#' a wall, 'T' the treasure."""

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Row and column changes of the actions up, down, left, right."""


class TreasureMaze(gym.Env[np.int64, np.int64]):
    """A grid world whose observation is the number of the cell (row * columns + column).

    A step into a wall or over the edge does not move the agent. Episodes start in a random free cell unless `start` is
    given.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"]}

    def __init__(
        self,
        grid: tuple[str, ...] = DEFAULT_MAP,
        start: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Builds the maze.

        Args:
          grid: equally long rows of '.', '#' and exactly one 'T'.
          start: the cell in which every episode starts, or None for a random free cell.
          render_mode: "ansi" or None.

        Raises:
          ValueError: if the grid is not rectangular, has unknown characters, no free cell, or not exactly one treasure,
            or if `start` is not a free cell.
        """
        self.grid = _checked_grid(grid)
        self.columns = len(grid[0])
        self.treasure = int(np.flatnonzero(self.grid.ravel() == "T")[0])
        self.free_cells = np.flatnonzero(self.grid.ravel() == ".")
        if start is not None and start not in self.free_cells:
            raise ValueError(f"start {start} is not a free cell: choose from {self.free_cells.tolist()}")
        self.next_cell = self._transition_table()
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Discrete(self.grid.size)
        self.action_space = gym.spaces.Discrete(len(MOVES))
        self._start = start
        self._cell = int(self.free_cells[0])

    def _transition_table(self) -> np.ndarray:
        """Returns int64 [S, A]: the next cell for each cell and action."""
        rows, columns = self.grid.shape
        table = np.repeat(np.arange(self.grid.size)[:, None], len(MOVES), axis=1)  # [S, A]
        for cell in range(self.grid.size):
            for action, (down, right) in enumerate(MOVES):
                row, column = cell // columns + down, cell % columns + right
                if 0 <= row < rows and 0 <= column < columns and self.grid[row, column] != "#":
                    table[cell, action] = row * columns + column
        return table

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Starts an episode."""
        super().reset(seed=seed)
        self._cell = int(self.np_random.choice(self.free_cells)) if self._start is None else self._start
        return np.int64(self._cell), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Moves the agent. Reaching the treasure gives TREASURE_REWARD and ends the episode."""
        self._cell = int(self.next_cell[self._cell, action])
        found = self._cell == self.treasure
        return np.int64(self._cell), TREASURE_REWARD if found else 0.0, found, False, {}

    def render(self) -> str:
        """Returns the grid with the agent as '@'."""
        cells = self.grid.copy().ravel()
        cells[self._cell] = "@"
        return "\n".join("".join(row) for row in cells.reshape(self.grid.shape))

    def optimal_action_values(self, gamma: float, *, tolerance: float = 1e-10) -> np.ndarray:
        """Computes Q* by value iteration (Sutton & Barto 2018, section 4.4).

        Args:
          gamma: the discount, below 1.
          tolerance: iteration stops when the largest change of a sweep is below this.

        Returns:
          float64 [S, A]; the rows of walls and of the treasure are 0 and not meaningful.
        """
        reward = np.where(self.next_cell == self.treasure, TREASURE_REWARD, 0.0)  # [S, A]
        not_terminal = self.next_cell != self.treasure  # [S, A]
        q = np.zeros_like(reward)  # [S, A]
        is_free = np.isin(np.arange(self.grid.size), self.free_cells)[:, None]  # [S, 1]
        while True:
            swept = is_free * (reward + gamma * not_terminal * q.max(axis=1)[self.next_cell])  # [S, A]
            if np.abs(swept - q).max() < tolerance:
                return swept
            q = swept


def _checked_grid(grid: tuple[str, ...]) -> np.ndarray:
    """Returns the grid as an array of characters [rows, columns], or raises ValueError."""
    if not grid or len({len(row) for row in grid}) != 1 or not grid[0]:
        raise ValueError("a maze needs rows of equal length, for example ('..', '.T')")
    cells = np.array([list(row) for row in grid])
    unknown = set(cells.ravel()) - set(".#T")
    if unknown:
        raise ValueError(f"unknown maze characters {sorted(unknown)}: use '.', '#' and 'T'")
    if (cells == "T").sum() != 1:
        raise ValueError(f"a maze has exactly one treasure 'T', not {(cells == 'T').sum()}")
    if not (cells == ".").any():
        raise ValueError("a maze needs at least one free cell '.'")
    return cells


def register_maze() -> None:
    """Registers the maze with Gymnasium as MAZE_ID. Further calls have no effect."""
    if MAZE_ID not in gym.registry:
        gym.register(MAZE_ID, entry_point=TreasureMaze, max_episode_steps=100)
