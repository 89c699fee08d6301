"""The truth test: the maze's learned Q is its exact Q*, at one rank and at two."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from launching import newest_checkpoint, run_well

from hvd_dqn.envs.maze import DEFAULT_MAP

pytestmark = pytest.mark.parallel

MOVES = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1)}  # up, down, left, right


def steps_to_the_treasure(grid: tuple[str, ...]) -> dict[tuple[int, int], int]:
    """Returns each free cell's least number of moves to the treasure, by breadth-first search from it."""
    treasure = next((r, row.index("T")) for r, row in enumerate(grid) if "T" in row)
    distance, waiting = {treasure: 0}, deque([treasure])
    while waiting:
        r, c = waiting.popleft()
        for down, right in MOVES.values():
            cell = r + down, c + right
            inside = 0 <= cell[0] < len(grid) and 0 <= cell[1] < len(grid[0])
            if inside and grid[cell[0]][cell[1]] == "." and cell not in distance:
                distance[cell] = distance[r, c] + 1
                waiting.append(cell)
    return distance


def exact_action_values(grid: tuple[str, ...], gamma: float) -> dict[tuple[int, int], float]:
    """Returns Q* of every free cell's number and action: 100 gamma^n, n the moves that remain after this one.

    The moves are deterministic and only the treasure pays, so no iteration is needed.
    """
    distance, columns = steps_to_the_treasure(grid), len(grid[0])
    q = {}
    for (r, c), steps in distance.items():
        for action, (down, right) in MOVES.items():
            if steps > 0:
                after = distance.get((r + down, c + right), steps)  # a wall or an edge: stays
                q[r * columns + c, action] = 100.0 * gamma**after
    return q


def learned_action_values(checkpoint: Path, states: int) -> np.ndarray:
    """Returns the online MLP's Q [S, A] of one-hot states, computed from the saved weights alone."""
    weights = safetensors.numpy.load_file(checkpoint / "model.safetensors")
    layers = sorted({name.rpartition("/")[0] for name in weights}, key=lambda name: (len(name), name))
    x = np.eye(states)
    for depth, layer in enumerate(layers):
        x = x @ weights[f"{layer}/kernel"].astype(np.float64) + weights[f"{layer}/bias"]
        if depth < len(layers) - 1:
            x = np.maximum(x, 0.0)
    return x


@pytest.mark.parametrize(("how", "ranks"), [("python", 1), ("mpirun", 2)], ids=["one rank", "two ranks"])
def test_the_mazes_learned_q_is_within_one_percent_of_the_truth(how: str, ranks: int, tmp_path: Path) -> None:
    """Every free cell and action: |Q - Q*| <= 1 % of Q* after `train.py --preset maze`."""
    run_well(how, ranks, "--preset", "maze", "--runs-dir", tmp_path, "--name", "truth", seconds=400.0)
    (run_directory,) = tmp_path.glob("*/truth")
    gamma = json.loads((run_directory / "config.json").read_text())["config"]["gamma"]
    truth = exact_action_values(DEFAULT_MAP, gamma)
    assert len(truth) == 4 * sum(row.count(".") for row in DEFAULT_MAP)
    learned = learned_action_values(newest_checkpoint(run_directory), sum(map(len, DEFAULT_MAP)))
    errors = {pair: abs(learned[pair] - value) / value for pair, value in truth.items()}
    worst = max(errors, key=lambda pair: errors[pair])
    print(f"worst relative error {errors[worst]:.1e} at (cell, action) {worst}, ranks {ranks}")
    assert errors[worst] <= 0.01, f"cell and action {worst}: {learned[worst]} instead of {truth[worst]}"
