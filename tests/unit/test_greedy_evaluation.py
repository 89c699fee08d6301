"""Laws of greedy evaluation: results depend on weights and seeds alone."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from hvd_dqn.envs.greedy import EpisodeSeed, GreedyEvaluation, Outcome, greedy_values
from hvd_dqn.envs.life_losses import LIFE_LOST
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.errors import UserError

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


def _evaluate(episodes: list[EpisodeSeed], max_parallel: int = 16, epsilon: float = 0.0) -> dict[int, float]:
    evaluation = GreedyEvaluation(_maker().single, _lean, FLOAT, max_parallel, epsilon=epsilon)
    evaluation.begin(episodes)
    assert evaluation.run(60.0) == 0
    evaluation.close()
    return _returns(evaluation)


def _returns(evaluation: GreedyEvaluation) -> dict[int, float]:
    return {number: outcome.total for number, outcome in evaluation.outcomes().items()}


def _refusing_after(made: int) -> Callable[[], gym.Env]:
    """Returns a constructor of environments of which only so many can exist."""
    envs: list[gym.Env] = []

    def make() -> gym.Env:
        if len(envs) == made:
            raise UserError("no licence left")
        envs.append(_maker().single())
        return envs[-1]

    return make


def test_evaluation_continues_with_as_many_environments_as_can_be_made() -> None:
    warnings: list[str] = []
    evaluation = GreedyEvaluation(_refusing_after(2), _lean, FLOAT, 16, warn=warnings.append)
    for _ in range(2):
        evaluation.begin(EPISODES)
        assert evaluation.run(60.0) == 0
        assert _returns(evaluation) == _independently()
    assert len(warnings) == 1
    assert "2 environment(s) at a time: no licence left" in warnings[0]


def test_an_evaluation_without_any_environment_is_refused_with_the_remedy() -> None:
    evaluation = GreedyEvaluation(_refusing_after(0), _lean, FLOAT)
    evaluation.begin(EPISODES)
    with pytest.raises(UserError, match=r"(?s)no licence left.*--evaluation-period 0"):
        evaluation.run(60.0)


def test_an_episode_that_never_ends_is_cut_off_at_the_limit() -> None:
    """Returns of a corridor without a way to the treasure; one that ends by itself at the limit is not counted."""
    maker = EnvironmentMaker("hvd_dqn/TreasureMaze-v0", {"grid": ["...T"], "start": 0}, "sync")
    for limit, cut_off in ((7, 2), (100, 0), (0, 0)):
        left = functools.partial(_always, np.eye(4, dtype=np.float32)[2])
        evaluation = GreedyEvaluation(maker.single, left, np.dtype(np.int32), step_limit=limit)
        evaluation.begin([(0, 1), (1, 2)])
        assert evaluation.run(60.0) == 0
        assert _returns(evaluation) == {0: 0.0, 1: 0.0}
        assert evaluation.cut_off == cut_off
        evaluation.begin([])
        assert evaluation.cut_off == 0


@pytest.mark.parametrize("max_parallel", [1, 3])
def test_random_actions_of_an_evaluation_depend_on_its_seeds_alone(max_parallel: int) -> None:
    returns = _evaluate(EPISODES, epsilon=0.3)
    assert returns == _evaluate(EPISODES[::-1], max_parallel, epsilon=0.3)
    assert returns != _evaluate(EPISODES)
    assert _evaluate(EPISODES, epsilon=0.0) == _evaluate(EPISODES)


@pytest.mark.parametrize("epsilon", [0.25, 1.0])
def test_an_evaluation_takes_random_actions_with_probability_epsilon_among_the_valid_ones(epsilon: float) -> None:
    """Of four actions the last is invalid: the other two are taken in a third of the random actions each."""
    taken: list[int] = []

    class Listening(gym.Env[np.ndarray, np.int64]):
        observation_space, action_space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Discrete(4)

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
            return np.zeros(1, np.float32), {}

        def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
            taken.append(int(action))
            return np.zeros(1, np.float32), 0.0, len(taken) % 3000 == 0, False, {}

    preference = functools.partial(_always, np.array([0.0, 3.0, 1.0, -np.inf], np.float32))
    evaluation = GreedyEvaluation(Listening, preference, FLOAT, epsilon=epsilon)
    evaluation.begin([(0, 1)])
    assert evaluation.run(60.0) == 0
    shares = np.bincount(taken, minlength=4) / 3000
    np.testing.assert_allclose(shares, [epsilon / 3, 1 - 2 * epsilon / 3, epsilon / 3, 0.0], atol=0.03)
    assert shares[3] == 0.0


class _Typed(gym.Env[np.ndarray, np.int64]):
    """Takes NumPy's integers alone, as they come from Gymnasium's own vector environments."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        return np.zeros(4, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert type(action) is np.int64
        return np.zeros(4, np.float32), float(action.item()), True, False, {}


def test_actions_have_the_type_that_training_gives() -> None:
    seen = SyncVectorEnv([_Typed])
    seen.reset()
    seen.step(np.zeros(1, np.int64))
    evaluation = GreedyEvaluation(_Typed, functools.partial(_always, np.array([0.0, 1.0], np.float32)), FLOAT)
    evaluation.begin([(0, 1)])
    assert evaluation.run(60.0) == 0
    assert _returns(evaluation) == {0: 1.0}


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
    assert _returns(evaluation) == _independently()
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
    assert _returns(evaluation) == {number: expected[number] for number, _ in EPISODES[3:]}
    evaluation.close()


def test_no_episodes_are_finished_at_once() -> None:
    """A rank beyond the number of episodes has none."""
    evaluation = GreedyEvaluation(_maker().single, _lean, FLOAT)
    evaluation.begin([])
    assert evaluation.run(1.0) == 0
    assert _returns(evaluation) == {}


def test_the_greedy_action_is_taken() -> None:
    """In a corridor, always right finds the treasure of 100; always left never does and is cut off at 100 steps."""
    maker = EnvironmentMaker("hvd_dqn/TreasureMaze-v0", {"grid": ["...T"], "start": 0}, "auto")
    for best, expected in ((3, 100.0), (2, 0.0)):
        preference = np.eye(4, dtype=np.float32)[best]
        evaluation = GreedyEvaluation(maker.single, functools.partial(_always, preference), np.dtype(np.int32))
        evaluation.begin([(0, 1), (1, 2)])
        assert evaluation.run(60.0) == 0
        assert _returns(evaluation) == {0: expected, 1: expected}
        evaluation.close()


class _Paid(gym.Env):
    """Pays 2, 0.5 and -3, and shows how many of them were paid; ends as it is made to."""

    observation_space = gym.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, terminates: bool, life_lost_at: int | None = None) -> None:
        self._terminates, self._life_lost_at = terminates, life_lost_at

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self._paid = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = (2.0, 0.5, -3.0)[self._paid]
        self._paid += 1
        over, lost = self._paid == 3, {LIFE_LOST: self._paid == self._life_lost_at}
        return (
            np.full(1, self._paid, np.float32),
            reward,
            over and self._terminates,
            over and not self._terminates,
            lost,
        )


@pytest.mark.parametrize(
    ("terminates", "life_lost_at", "clip_rewards", "step_limit", "expected"),
    [
        (True, None, False, 0, 2 + 0.5 / 2 - 3 / 4),
        (True, None, True, 0, 1 + 0.5 / 2 - 1 / 4),
        (False, None, False, 0, 2 + 0.5 / 2 - 3 / 4 + 13 / 8),
        (True, None, False, 2, 2 + 0.5 / 2 + 12 / 4),
        (True, 2, False, 0, 2 + 0.5 / 2),
        (False, 2, False, 0, 2 + 0.5 / 2),
    ],
)
def test_the_discounted_return_is_what_the_first_action_value_estimates(
    terminates: bool, life_lost_at: int | None, clip_rewards: bool, step_limit: int, expected: float
) -> None:
    """By hand, gamma 1/2 and a greatest value of 10 + s: clipped as learned, up to a lost life; a time limit continues.

    The return is the environment's own.
    """
    evaluation = GreedyEvaluation(
        lambda: _Paid(terminates, life_lost_at),
        lambda s: np.concatenate([s, 10 + s], axis=1),
        FLOAT,
        step_limit=step_limit,
        gamma=0.5,
        clip_rewards=clip_rewards,
    )
    evaluation.begin([(0, 1), (1, 2)])
    assert evaluation.run(60.0) == 0
    total = 2.5 if step_limit else -0.5
    assert evaluation.outcomes() == {i: Outcome(total, 10.0, expected) for i in (0, 1)}


@pytest.mark.parametrize("parts", [2, 3])
def test_values_are_the_same_however_the_episodes_are_split(parts: int) -> None:
    def outcomes(episodes: list[EpisodeSeed]) -> dict[int, Outcome]:
        evaluation = GreedyEvaluation(_maker().single, _lean, FLOAT, gamma=0.9)
        evaluation.begin(episodes)
        assert evaluation.run(60.0) == 0
        return evaluation.outcomes()

    whole = outcomes(EPISODES)
    split = {number: outcome for rank in range(parts) for number, outcome in outcomes(EPISODES[rank::parts]).items()}
    assert split == whole


def test_the_value_of_an_action_of_several_joints_is_the_mean_of_theirs() -> None:
    q = np.array([[[1.0, 4.0], [3.0, -np.inf]]], np.float32)
    np.testing.assert_array_equal(greedy_values(q), [3.5])
    np.testing.assert_array_equal(greedy_values(q[:, 0]), [4.0])


class _Halves(gym.Env[np.ndarray, np.ndarray]):
    """Two joints of three and two bins; keeps its actions, and ends after 2,000."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.MultiDiscrete([3, 2])

    def __init__(self) -> None:
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        return np.zeros(1, np.float32), 1.0, len(self.actions) == 2_000, False, {}


@pytest.mark.parametrize(("epsilon", "greedy"), [(0.0, [1.0, 1.0]), (0.4, [0.6 + 0.4 / 3, 0.8])])
def test_each_joint_is_random_with_epsilon_among_the_bins_that_it_has(epsilon: float, greedy: list[float]) -> None:
    env = _Halves()
    preference = np.array([[0.0, 0.0, 2.0], [3.0, 1.0, -np.inf]], np.float32)
    evaluation = GreedyEvaluation(lambda: env, lambda s: np.tile(preference, (len(s), 1, 1)), FLOAT, epsilon=epsilon)
    evaluation.begin([(0, 3)])
    while evaluation.run(60.0):
        pass
    actions = np.stack(env.actions)
    assert actions.shape == (2_000, 2)
    assert all(env.action_space.contains(action) for action in env.actions)
    np.testing.assert_allclose((actions == [2, 0]).mean(axis=0), greedy, atol=0.04)
    assert evaluation.outcomes()[0].start_value == 2.5
