"""Laws of making environments from an id, and of the spaces that are supported."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from hvd_dqn.envs.make import EnvironmentMaker, SingleFromVector
from hvd_dqn.envs.spaces import read_spaces
from hvd_dqn.errors import UserError

from .toy_environments import register_toys

register_toys()


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("CartPole", "did you mean 'CartPole-v[01]'"),
        ("CartPool-v1", "Did you mean: `CartPole`"),
        ("CartPole-v7", "v1"),
        ("NoSuchThing-v0", "pprint_registry"),
    ],
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


MODULE = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv
from neighbour import LENGTH
class {name}(CartPoleEnv):
    pass
gym.register("{name}-v3", entry_point="{stem}:{name}", max_episode_steps=LENGTH)
"""


@pytest.mark.parametrize("stem", ["my_cart", "json"])
@pytest.mark.parametrize("name", ["{path}:{name}-v3", "{path}:{name}"])
def test_a_file_is_named_by_its_path_whatever_other_module_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str, name: str
) -> None:
    """With the modules next to it; its own id, or a class of it."""
    cls = f"Cart{stem.title().replace('_', '')}{len(name)}"
    text = MODULE.format(name=cls, stem=stem).replace(f'"{stem}:{cls}"', cls)
    (tmp_path / f"{stem}.py").write_text(text)
    (tmp_path / "neighbour.py").write_text("LENGTH = 9")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    for _ in range(2):
        maker = EnvironmentMaker(name.format(path=f"./{stem}.py", name=cls), {}, "sync")
        assert type(maker.single().unwrapped).__name__ == cls
    assert json.loads("1") == 1
    del sys.modules["neighbour"]


def test_a_class_is_found_in_a_module_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "neighbour.py").write_text("LENGTH = 9")
    (tmp_path / "local_cart.py").write_text(MODULE.format(name="LocalCart", stem="local_cart"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    assert type(EnvironmentMaker("local_cart:LocalCart", {}, "auto").single().unwrapped).__name__ == "LocalCart"
    with pytest.raises(UserError, match=r"local_cart was imported; .*did you mean 'LocalCart-v3'") as caught:
        EnvironmentMaker("local_cart:LocalCart-v4", {}, "auto")
    assert "PYTHONPATH" not in str(caught.value)
    del sys.modules["neighbour"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("gym.register('X-v0', entry_point=NotDefined)", "NameError: name 'gym' is not defined"),
        ("class :", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import no_such_library", "No module named 'no_such_library'"),
    ],
)
def test_a_module_that_fails_is_named_with_its_line(tmp_path: Path, code: str, words: str) -> None:
    (tmp_path / "fails.py").write_text(code)
    with pytest.raises(UserError, match=words) as caught:
        EnvironmentMaker(f"{tmp_path}/fails.py:X-v0", {}, "auto")
    assert "fails.py" in str(caught.value)
    assert "PYTHONPATH" not in str(caught.value), "it was found"


def test_a_file_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match=r"No such file.*nowhere\.py"):
        EnvironmentMaker("./nowhere.py:X-v0", {}, "auto")


def test_older_names_of_atari_are_answered_with_todays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(gym.registry, "BreakoutNoFrameskip-v4", raising=False)  # another test may have imported ALE
    with pytest.raises(UserError, match=r"ALE/Breakout-v5, or as here ale_py:BreakoutNoFrameskip-v4"):
        EnvironmentMaker("BreakoutNoFrameskip-v4", {}, "auto")


def test_arguments_of_the_single_form_are_answered_with_the_form_that_takes_them() -> None:
    pytest.importorskip("ale_py")
    with pytest.raises(UserError, match=r"obs_type.*--vectorization sync"):
        EnvironmentMaker("ALE/Pong-v5", {"obs_type": "ram"}, "auto").spaces()


def test_an_environment_that_cannot_be_made_is_named_with_its_line() -> None:
    with pytest.raises(UserError, match=r"(?s)cannot make OddSpaces-v0.*KeyboardInterrupt.*toy_environments.py"):
        EnvironmentMaker("OddSpaces-v0", {"kind": "interrupted"}, "sync").vector(2)


class _Bare(gym.Env):
    """An environment in which something is missing."""

    def __init__(self, **has: gym.Space) -> None:
        self.__dict__.update(has)


class _Forgetful(gym.Wrapper):
    def __init__(self, env: gym.Env) -> None:
        pass  # no super().__init__(env)


class _BareVector(VectorEnv):
    """A vector form in which everything is missing."""

    def __init__(self, num_envs: int, **arguments: object) -> None:
        pass


_BOX, _ACTIONS = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)
UNFINISHED = {
    "no spaces": _Bare,
    "no actions": lambda: _Bare(observation_space=_BOX),
    "no observations": lambda: _Bare(action_space=_ACTIONS),
    "a wrapper without super().__init__": lambda: _Forgetful(_Bare()),
    "no environment": object,
}


@pytest.mark.parametrize("vectorization", ["sync", "async", "native"])
@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_environment_is_refused(name: str, vectorization: str) -> None:
    gym.registry.pop("Unfinished-v0", None)
    gym.register("Unfinished-v0", UNFINISHED[name], vector_entry_point=_BareVector)
    maker = EnvironmentMaker("Unfinished-v0", {}, vectorization)
    with pytest.raises(UserError, match="Unfinished-v0"):
        maker.spaces()
    if vectorization == "native":
        with pytest.raises(UserError, match="Unfinished-v0"):
            maker.vector(2)


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
        ("continuous", "--action-bins 2"),
        ("shifted-actions", "count from 0"),
    ],
)
def test_unsupported_spaces_are_refused_with_what_is_supported(kind: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        EnvironmentMaker("OddSpaces-v0", {"kind": kind}, "sync").spaces()
    assert "OddSpaces-v0" in str(caught.value)


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


@pytest.mark.parametrize(
    ("vectorization", "constructors"),
    [
        ("sync", [f"the constructor of environment {n}" for n in (4, 5)]),
        ("async", ["the constructor of an environment"]),
        ("native", ["the constructor of an environment"]),
    ],
)
def test_each_constructor_is_watched_alone_and_by_the_job_alone(vectorization: str, constructors: list[str]) -> None:
    """Many slow ones are no stall, and a process of an environment must not end the job."""
    watched, home = list[str](), os.getpid()

    @contextlib.contextmanager
    def watch() -> Iterator[None]:
        assert os.getpid() == home
        watched.append(str(maker.calls))
        assert not nested, "no constructor runs while another one is watched"
        nested.append(True)
        yield
        nested.pop()

    nested = list[bool]()
    maker = EnvironmentMaker("CartPole-v1", {}, vectorization, watched=watch)
    maker.spaces()
    assert watched[0] == "the constructor of a first environment"
    watched.clear()
    maker.vector(2, 4).close()
    assert [call for call in watched if call][: len(constructors)] == constructors
