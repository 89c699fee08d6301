"""Laws of making environments from an id, and of the spaces that are supported."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from hvd_dqn.envs.make import EnvironmentMaker, SingleFromVector
from hvd_dqn.envs.spaces import read_spaces
from hvd_dqn.errors import UserError

from .toy_environments import register_toys

register_toys()


@pytest.mark.parametrize(
    ("env_id", "words"),
    [("CartPool-v1", "Did you mean: `CartPole`"), ("CartPole-v7", "v1"), ("NoSuchThing-v0", "pprint_registry")],
)
def test_an_unknown_id_is_refused_with_the_nearest_match(env_id: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        EnvironmentMaker(env_id, {}, "auto")
    assert env_id in str(caught.value)


def test_a_third_partys_module_is_imported_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "third_party_maze.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Theirs(CartPoleEnv):\n"
        "    pass\n"
        "gym.register('Theirs-v3', entry_point=Theirs, max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    maker = EnvironmentMaker("third_party_maze:Theirs-v3", {}, "auto")
    assert maker.spaces().num_actions == 2
    assert isinstance(maker.vector(2), SyncVectorEnv)
    single = maker.single()
    single.reset(seed=0)
    assert type(single.unwrapped).__name__ == "Theirs"


def test_a_module_that_cannot_be_imported_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"no_such_module.*PYTHONPATH"):
        EnvironmentMaker("no_such_module:Thing-v0", {}, "auto")


def test_an_id_that_its_module_does_not_register_is_refused() -> None:
    with pytest.raises(UserError, match="json:Absent-v0"):
        EnvironmentMaker("json:Absent-v0", {}, "auto")


def test_unknown_keyword_arguments_are_refused() -> None:
    for vectorization in ("native", "sync"):
        maker = EnvironmentMaker("CartPole-v1", {"gravitation": 3}, vectorization)
        for make in (maker.single, lambda maker=maker: maker.vector(2), maker.spaces):
            with pytest.raises(UserError, match=r"env-kwargs.*gravitation"):
                make()


@pytest.mark.parametrize(
    ("arguments", "words"), [({"start": 2}, "not a free cell"), ({"grid": ["..", ".."]}, "treasure")]
)
def test_keyword_arguments_of_a_bad_value_are_refused(arguments: dict, words: str) -> None:
    """Cell 2 of the default maze is a wall; a grid needs a treasure: the constructor's own ValueError tells."""
    with pytest.raises(UserError, match=words):
        EnvironmentMaker("hvd_dqn/TreasureMaze-v0", arguments, "auto").spaces()


def test_keyword_arguments_reach_the_environments() -> None:
    maker = EnvironmentMaker("hvd_dqn/TreasureMaze-v0", {"grid": ["..T"], "start": 1}, "auto")
    assert maker.spaces().num_categories == 3
    observation, _ = maker.vector(2).reset(seed=0)
    np.testing.assert_array_equal(observation, [1, 1])
    assert maker.single().reset(seed=0)[0] == 1


def test_native_form_is_taken_where_it_exists() -> None:
    kinds = {mode: type(EnvironmentMaker("CartPole-v1", {}, mode).vector(2)) for mode in ("auto", "native", "sync")}
    assert kinds["auto"] is kinds["native"] is not SyncVectorEnv
    assert kinds["sync"] is SyncVectorEnv
    assert isinstance(EnvironmentMaker("Acrobot-v1", {}, "auto").vector(2), SyncVectorEnv)
    with pytest.raises(UserError, match="no native vector form"):
        EnvironmentMaker("Acrobot-v1", {}, "native")


def test_async_environments_run_in_processes_of_their_own() -> None:
    vector = EnvironmentMaker("Acrobot-v1", {}, "async").vector(1)
    assert isinstance(vector, AsyncVectorEnv)
    assert vector.reset(seed=[0])[0].shape == (1, 6)
    vector.close()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("dict", "supported are Box .* and Discrete"),
        ("shifted", "Discrete counting from 0"),
        ("multi", "a DQN needs Discrete actions"),
        ("continuous", "a DQN needs Discrete actions"),
        ("shifted-actions", "count from 0"),
    ],
)
def test_unsupported_spaces_are_refused_with_what_is_supported(kind: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        EnvironmentMaker("OddSpaces-v0", {"kind": kind}, "sync").spaces()
    assert "OddSpaces-v0" in str(caught.value)


def test_a_real_continuous_environment_is_refused() -> None:
    with pytest.raises(UserError, match=r"Pendulum-v1 has the action space Box.*Discrete actions"):
        EnvironmentMaker("Pendulum-v1", {}, "auto").spaces()


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("CartPole-v1", ([[4], "float32", 0], 2)),
        ("FrozenLake-v1", ([[], "int32", 16], 4)),
        ("hvd_dqn/TreasureMaze-v0", ([[], "int32", 25], 4)),
    ],
)
def test_spaces_are_told_in_plain_terms(env_id: str, expected: tuple) -> None:
    spaces = EnvironmentMaker(env_id, {}, "auto").spaces()
    assert (spaces.describe()["observation"], spaces.describe()["actions"]) == expected


def test_double_precision_is_stored_as_float32_and_bytes_stay_bytes() -> None:
    discrete = gym.spaces.Discrete(2)
    assert read_spaces("x", gym.spaces.Box(-1, 1, (3,), np.float64), discrete).observation_dtype == np.float32
    assert read_spaces("x", gym.spaces.Box(0, 255, (3, 3), np.uint8), discrete).observation_dtype == np.uint8


def test_atari_shows_the_same_stacked_images_in_training_and_evaluation() -> None:
    pytest.importorskip("ale_py")
    maker = EnvironmentMaker("ALE/Pong-v5", {}, "auto")
    spaces = maker.spaces()
    assert (spaces.observation_shape, spaces.observation_dtype, spaces.num_actions) == ((84, 84, 4), np.uint8, 6)
    vector, single = maker.vector(2), maker.single()
    assert isinstance(single.unwrapped, SingleFromVector)
    assert vector.single_observation_space == single.observation_space
    assert vector.single_action_space == single.action_space
    images, _ = vector.reset(seed=1)
    image, _ = single.reset(seed=1)
    assert images.shape == (2, *image.shape)
    assert image.dtype == images.dtype == np.uint8
    image, reward, terminated, truncated, _ = single.step(0)
    assert image.shape == (84, 84, 4)
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    vector.close()
    single.close()
