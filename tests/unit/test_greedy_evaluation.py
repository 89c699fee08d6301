"""Laws of greedy evaluation: results depend on weights and seeds alone."""

from __future__ import annotations

import functools
import time

import gymnasium as gym
import numpy as np
import pytest

from hvd_dqn.envs.greedy import EpisodeSeed, GreedyEvaluation
from hvd_dqn.envs.make import EnvironmentMaker

FLOAT = np.dtype(np.float32)
EPISODES = [(i, 1000 + 7 * i) for i in range(7)]


def _lean(s: np.ndarray) -> np.ndarray:
    """A fixed policy for CartPole whose returns differ from episode to episode: pushes towards the pole's lean."""
    push = s @ np.array([0.1, 0.3, 1.0, 0.2], np.float32)
    return np.stack([-push, push], axis=1)


def _always(preference: np.ndarray, s: np.ndarray) -> np.ndarray:
    return np.tile(preference, (len(s), 1))


def _maker() -> EnvironmentMaker:
    return EnvironmentMaker("CartPole-v1", {"max_episode_steps": 120}, "auto")


def _evaluate(episodes: list[EpisodeSeed], max_parallel: int = 16) -> dict[int, float]:
    evaluation = GreedyEvaluation(_maker().single, _lean, FLOAT, max_parallel)
    evaluation.begin(episodes)
    assert evaluation.run(60.0) == 0
    evaluation.close()
    return evaluation.returns()


def _independently() -> dict[int, float]:
    returns = {}
    for number, seed in EPISODES:
        env = gym.make("CartPole-v1", max_episode_steps=120)
        s, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            s, r, terminated, truncated, _ = env.step(int(_lean(s[None])[0].argmax()))
            total, over = total + float(r), terminated or truncated
        returns[number] = total
    return returns


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_returns_are_the_same_however_the_episodes_are_shared_out(parts: int) -> None:
    """Against plain environments played one after another."""
    expected = _independently()
    assert len(set(expected.values())) > 3
    together: dict[int, float] = {}
    for rank in range(parts):
        own = _evaluate(EPISODES[rank::parts])
        assert sorted(own) == [number for number, _ in EPISODES[rank::parts]]
        together |= own
    assert together == expected


@pytest.mark.parametrize("max_parallel", [1, 2, 5])
def test_environments_used_again_give_the_same_returns(max_parallel: int) -> None:
    assert _evaluate(EPISODES, max_parallel) == _independently()


def test_slices_of_time_finish_all_episodes() -> None:
    """A slice of no time plays nothing and tells that all remain; many short ones end where one long one does."""

    def slowly(s: np.ndarray) -> np.ndarray:
        time.sleep(0.002)
        return _lean(s)

    evaluation = GreedyEvaluation(_maker().single, slowly, FLOAT, 3)
    evaluation.begin(EPISODES)
    assert evaluation.run(0.0) == 7
    remaining = [7]
    while remaining[-1]:
        remaining.append(evaluation.run(0.01))
    assert len(remaining) > 3
    assert remaining == sorted(remaining, reverse=True)
    assert evaluation.returns() == _independently()
    evaluation.close()


@pytest.mark.parametrize("seconds", [60.0, 0.001])
def test_a_new_evaluation_forgets_the_one_before(seconds: float) -> None:
    """Whether that one was finished or broken off."""
    evaluation = GreedyEvaluation(_maker().single, _lean, FLOAT, 2)
    evaluation.begin(EPISODES[:3])
    evaluation.run(seconds)
    evaluation.begin(EPISODES[3:])
    assert evaluation.run(60.0) == 0
    expected = _independently()
    assert evaluation.returns() == {number: expected[number] for number, _ in EPISODES[3:]}
    evaluation.close()


def test_no_episodes_are_finished_at_once() -> None:
    """A rank beyond the number of episodes has none."""
    evaluation = GreedyEvaluation(_maker().single, _lean, FLOAT)
    evaluation.begin([])
    assert evaluation.run(1.0) == 0
    assert evaluation.returns() == {}


def test_the_greedy_action_is_taken() -> None:
    """In a corridor, always right finds the treasure of 100; always left never does and is cut off at 100 steps."""
    maker = EnvironmentMaker("hvd_dqn/TreasureMaze-v0", {"grid": ["...T"], "start": 0}, "auto")
    for best, expected in ((3, 100.0), (2, 0.0)):
        preference = np.eye(4, dtype=np.float32)[best]
        evaluation = GreedyEvaluation(maker.single, functools.partial(_always, preference), np.dtype(np.int32))
        evaluation.begin([(0, 1), (1, 2)])
        assert evaluation.run(60.0) == 0
        assert evaluation.returns() == {0: expected, 1: expected}
        evaluation.close()
