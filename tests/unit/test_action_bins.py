"""Laws of Box actions in bins: what a bin stands for, in which forms of an environment, and what is refused."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from hvd_dqn.config import Config, replace
from hvd_dqn.envs.action_bins import BinnedSpace
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.spaces import read_spaces
from hvd_dqn.errors import UserError
from hvd_dqn.validation import validate

from .toy_environments import register_toys

PENDULUM = "Pendulum-v1"
"""One number, from -2 to 2."""


@pytest.fixture(scope="module", autouse=True)
def _toys() -> None:
    register_toys()


def _box(low: Any, high: Any, dtype: type = np.float32) -> gym.spaces.Box:
    return gym.spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


def test_bins_are_equally_spaced_and_reach_both_bounds() -> None:
    space = BinnedSpace("x", _box([-1.0, 0.0], [1.0, 6.0]), 3)
    assert space.nvec.tolist() == [3, 3]
    np.testing.assert_array_equal(space.values, [[-1.0, 0.0, 1.0], [0.0, 3.0, 6.0]])
    odd = BinnedSpace("x", _box([-0.1], [0.3]), 7).values
    assert odd[0, [0, -1]].tolist() == np.array([-0.1, 0.3], np.float32).tolist(), "exactly: not beyond the Box"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_have_the_boxs_shape_and_dtype(dtype: type) -> None:
    box = _box(np.zeros((2, 2)), np.full((2, 2), 3.0), dtype)
    space = BinnedSpace("x", box, 4)
    action = space.unbinned(np.array([0, 1, 2, 3]))
    assert action.dtype == dtype
    assert action.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert box.contains(action)
    assert space.unbinned(np.array([[0, 1, 2, 3], [3, 2, 1, 0]]))[1].tolist() == [[3.0, 2.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (gym.spaces.Discrete(3), r"--action-bins 2 is for Box actions, and x has .* Discrete\(3\): leave it out"),
        (gym.spaces.MultiDiscrete([2, 2]), "leave it out"),
        (_box([-np.inf], [1.0]), "infinite bounds, .* clip its actions"),
        (_box([0], [5], np.int32), "only rows of floats"),
        (gym.spaces.Box(-1.0, 1.0, ()), "only rows of floats"),
    ],
)
def test_other_actions_are_refused_with_the_remedy(action: gym.Space[Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        BinnedSpace("x", action, 2)


@pytest.mark.parametrize("bins", [1, -3])
def test_less_than_two_bins_are_refused(bins: int) -> None:
    with pytest.raises(UserError, match=rf"--action-bins is {bins}: give at least 2, or 0 where"):
        validate(replace(Config(), {"action_bins": bins}))


def test_every_form_of_an_environment_has_the_same_joints() -> None:
    maker = EnvironmentMaker(PENDULUM, {}, "sync", action_bins=5)
    spaces = maker.spaces()
    assert (spaces.num_actions, spaces.joint_bins, spaces.action_shape) == (5, (5,), (1,))
    assert spaces.describe()["actions"] == [5]
    assert maker.action_names(maker.single()) == ["1: -2", "1: -1", "1: 0", "1: 1", "1: 2"]


@pytest.mark.parametrize("vectorization", ["sync", "async", "envpool"])
def test_a_vector_environment_steps_by_the_values_of_bins(vectorization: str) -> None:
    """The torque u of the pendulum costs 0.001 u^2: bins 0, 1 and 3 of four stand for -2, -2/3 and 2."""
    if vectorization == "envpool":
        pytest.importorskip("envpool")
    vector = EnvironmentMaker(PENDULUM, {}, vectorization, action_bins=4).vector(3)
    first, _ = vector.reset(seed=[0, 0, 0] if vectorization != "envpool" else 0)
    cosine, sine, speed = np.array(first, np.float64).T
    _, reward, *_ = vector.step(np.array([[0], [1], [3]]))
    vector.close()
    angle = np.arctan2(sine, cosine)
    cost = angle**2 + 0.1 * speed**2
    np.testing.assert_allclose(-np.array(reward) - cost, [0.004, 0.004 / 9, 0.004], atol=1e-5)


def test_the_native_form_of_an_environment_steps_by_the_values_of_bins() -> None:
    vector = EnvironmentMaker("Drawn-v0", {}, "native", action_bins=3).vector(2)
    vector.reset(seed=0)
    observation, *_ = vector.step(np.array([[0, 2], [1, 1]]))
    assert observation.tolist() == [[-1.0, 1.0], [0.0, 0.0]]


def test_an_environment_of_boxes_is_refused_without_bins() -> None:
    with pytest.raises(UserError, match=r"Pendulum-v1 has the action space Box.*give --action-bins 2 \(or more\)"):
        EnvironmentMaker(PENDULUM, {}, "auto").spaces()


def test_rows_of_discrete_actions_are_joints() -> None:
    observation = _box([0.0], [1.0])
    spaces = read_spaces("x", observation, gym.spaces.MultiDiscrete([2, 3]))
    assert (spaces.num_actions, spaces.joint_bins, spaces.action_shape) == (3, (2, 3), (2,))
    assert spaces.valid_bins is not None
    assert spaces.valid_bins.tolist() == [[True, True, False], [True, True, True]]
    assert read_spaces("x", observation, gym.spaces.MultiDiscrete([3, 3])).valid_bins is None
    assert read_spaces("x", observation, gym.spaces.Discrete(3)).valid_bins is None


@pytest.mark.parametrize(
    "action",
    [
        gym.spaces.MultiDiscrete([[2, 2], [2, 2]]),
        gym.spaces.MultiDiscrete([2, 2], start=[0, 1]),
        gym.spaces.MultiBinary(3),
        gym.spaces.Tuple([gym.spaces.Discrete(2)]),
    ],
)
def test_other_action_spaces_are_refused_with_what_is_supported(action: gym.Space[Any]) -> None:
    with pytest.raises(UserError, match=r"Discrete and a row of MultiDiscrete actions, .* Box with --action-bins"):
        read_spaces("x", _box([0.0], [1.0]), action)
