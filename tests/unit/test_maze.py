"""Laws of the treasure maze, on grids whose Q* fits on paper."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from hvd_dqn.envs.maze import DEFAULT_MAP, MAZE_ID, MOVES, TreasureMaze, register_maze

UP, DOWN, LEFT, RIGHT = range(4)


def test_corridors_q_star_is_100_90_81() -> None:
    """Cells 0, 1, treasure 2. From 1 right: 100; from 0 right: 0.9 * 100; a bump keeps the place: 0.9 * V."""
    q = TreasureMaze(("..T",)).optimal_action_values(0.9)
    np.testing.assert_allclose(q[1], [90.0, 90.0, 81.0, 100.0])
    np.testing.assert_allclose(q[0], [81.0, 81.0, 81.0, 90.0])
    np.testing.assert_array_equal(q[2], 0.0)


def test_q_star_goes_round_a_wall() -> None:
    """
    .#T    from cell 0 the way is down, right, right, up: 0.9 ** 3 * 100 = 72.9, through 81, 90, 100.
    ...
    """  # noqa: D205, D212
    q = TreasureMaze((".#T", "...")).optimal_action_values(0.9)
    assert q[0, DOWN] == pytest.approx(72.9)
    assert q[3, RIGHT] == pytest.approx(81.0)
    assert q[4, RIGHT] == pytest.approx(90.0)
    assert q[5, UP] == pytest.approx(100.0)
    assert q[0, RIGHT] == pytest.approx(0.9 * 72.9)
    np.testing.assert_array_equal(q[1], 0.0)


def test_q_star_satisfies_bellmans_equation_by_stepping_the_environment() -> None:
    """Every free cell and action of the default maze, one real step each."""
    gamma = 0.9
    probe = TreasureMaze()
    q = probe.optimal_action_values(gamma)
    for cell in probe.free_cells:
        maze = TreasureMaze(start=int(cell))
        for action in range(len(MOVES)):
            maze.reset()
            s, r, terminated, _, _ = maze.step(np.int64(action))
            assert q[cell, action] == pytest.approx(r + (0.0 if terminated else gamma * q[s].max()))
    assert all(q[cell].max() > 0 for cell in probe.free_cells)


def test_a_smaller_discount_loses_more_per_step() -> None:
    assert TreasureMaze(("...T",)).optimal_action_values(0.5)[0, RIGHT] == pytest.approx(25.0)


def _walk(maze: TreasureMaze, *actions: int) -> list[tuple[int, float, bool]]:
    maze.reset(seed=0)
    return [(int(s), r, over) for s, r, over, _, _ in (maze.step(np.int64(a)) for a in actions)]


def test_walls_and_edges_leave_the_agent_where_it_is() -> None:
    maze = TreasureMaze((".#T", "..."), start=0)
    assert _walk(maze, UP, LEFT, RIGHT) == [(0, 0.0, False)] * 3


def test_moves_are_up_down_left_right_and_the_treasure_ends_the_episode() -> None:
    maze = TreasureMaze((".#T", "..."), start=0)
    assert _walk(maze, DOWN, UP, DOWN, RIGHT, LEFT, RIGHT, RIGHT, UP) == [
        (3, 0.0, False),
        (0, 0.0, False),
        (3, 0.0, False),
        (4, 0.0, False),
        (3, 0.0, False),
        (4, 0.0, False),
        (5, 0.0, False),
        (2, 100.0, True),
    ]


def test_rows_do_not_wrap_around() -> None:
    """From the right end of the first row, right must not lead to the left end of the second."""
    maze = TreasureMaze(("...", "..T"), start=2)
    assert _walk(maze, RIGHT) == [(2, 0.0, False)]


def test_episodes_start_in_every_free_cell_and_nowhere_else() -> None:
    maze = TreasureMaze((".#T", "..."))
    maze.reset(seed=0)
    assert {int(maze.reset()[0]) for _ in range(200)} == {0, 3, 4, 5}


def test_same_seed_starts_in_the_same_cells() -> None:
    def starts(seed: int) -> list[int]:
        maze = TreasureMaze()
        return [int(maze.reset(seed=seed)[0]), *(int(maze.reset()[0]) for _ in range(20))]

    assert starts(1) == starts(1) != starts(2)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ((), "rows of equal length"),
        (("",), "rows of equal length"),
        (("..", "T"), "rows of equal length"),
        (("..x", "..T"), "unknown maze characters"),
        (("..", ".."), "exactly one treasure"),
        (("T.", ".T"), "exactly one treasure"),
        (("T#",), "free cell"),
    ],
)
def test_a_bad_grid_is_refused(grid: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TreasureMaze(grid)


@pytest.mark.parametrize("start", [1, 2, 99, -1])
def test_a_start_that_is_no_free_cell_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match="choose from"):
        TreasureMaze((".#T",), start=start)


def _make(**arguments: Any) -> gym.Env:
    register_maze()
    register_maze()  # a second call changes nothing
    return gym.make(MAZE_ID, disable_env_checker=True, **arguments)


def test_the_registered_maze_is_truncated_after_100_steps() -> None:
    env = _make(grid=("..T",), start=0)
    env.reset()
    ends = [env.step(LEFT)[2:4] for _ in range(100)]
    assert ends[:99] == [(False, False)] * 99
    assert ends[99] == (False, True)


def test_the_registered_maze_passes_gymnasiums_checker() -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(_make().unwrapped, skip_render_check=True)


def test_render_shows_the_agent() -> None:
    env = _make(grid=(".#T", "..."), start=0, render_mode="ansi")
    env.reset()
    assert env.render() == "@#T\n..."
    env.step(DOWN)
    assert env.render() == ".#T\n@.."


def test_the_default_maze_has_one_treasure_and_every_free_cell_reaches_it() -> None:
    maze = TreasureMaze()
    assert maze.grid.shape == (5, 5)
    assert "".join(DEFAULT_MAP).count("T") == 1
