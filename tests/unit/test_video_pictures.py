"""Laws of the pictures of environments: they show the episode that the agent plays, in every form of environment."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.pictures import ColourScreen, frames_per_second, picture_of
from hvd_dqn.errors import JobFault, UserError

from .masked_environments import ACTIONS


class Drawing(gym.Env[np.ndarray, int]):
    """Draws pictures of its steps; `fault` is what render() does wrong. Its infos have masks."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 7}
    observation_space = gym.spaces.Box(-1, 9, (2,), np.float32)
    action_space = gym.spaces.Discrete(ACTIONS)

    def __init__(self, render_mode: str | None = None, fault: str = "") -> None:
        self.render_mode, self._fault, self._step = render_mode, fault, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._step = 0
        return np.zeros(2, np.float32), {"action_mask": np.ones(ACTIONS, np.int8)}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        return np.full(2, self._step, np.float32), 1.0, False, False, {"action_mask": np.ones(ACTIONS, np.int8)}

    def render(self) -> Any:
        if self._fault == "raise":
            raise RuntimeError("no paint left")
        if self._fault == "floats":
            return np.zeros((4, 6, 3))
        return np.full((4, 6, 3), self._step, np.uint8) if self.render_mode == "rgb_array" else None

    def get_action_meanings(self) -> list[str]:
        return ["NORTH", "EAST", "SOUTH", "WEST"]


class Images(gym.Env[np.ndarray, int]):
    """Observes images with their channels first, and draws nothing."""

    observation_space = gym.spaces.Box(0, 255, (3, 8, 10), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        return np.full((3, 8, 10), 5, np.uint8), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.full((3, 8, 10), 6, np.uint8), 0.0, False, False, {}


for _name, _class in (("Drawing-v0", Drawing), ("Images-v0", Images)):
    if f"pictures/{_name}" not in gym.registry:
        gym.register(f"pictures/{_name}", entry_point=_class)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "LunarLander-v3", "FrozenLake-v1"])
def test_gymnasiums_environments_draw_themselves(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    maker = EnvironmentMaker(env_id, {}, "auto")
    env = maker.single(filmed=True)
    env.reset(seed=1)
    first: Any = env.render()
    for _ in range(5):
        env.step(np.int64(1))
    assert first.shape == env.render().shape
    assert first.dtype == np.uint8
    assert not np.array_equal(first, env.render())
    assert len(set(maker.action_names(env))) == env.action_space.n
    env.close()


def test_a_filmed_environment_plays_the_episode_that_one_without_pictures_plays() -> None:
    maker = EnvironmentMaker("CartPole-v1", {}, "auto")
    plain, filmed = maker.single(), maker.single(filmed=True)
    for env in (plain, filmed):
        env.reset(seed=3)
    for step in range(20):
        one, other = plain.step(np.int64(step % 2)), filmed.step(np.int64(step % 2))
        np.testing.assert_array_equal(one[0], other[0])
        filmed.render()
    plain.close()
    filmed.close()


@pytest.mark.parametrize("protocol", ["own", "nature"])
def test_a_game_of_atari_shows_its_colour_screen_at_every_step(protocol: str) -> None:
    """The screen's own grey values, made small as ALE does it, are the newest frame that the agent sees."""
    import cv2

    maker = EnvironmentMaker("ALE/Pong-v5", {}, "auto", protocol)
    env = maker.single(filmed=True)
    observation, _ = env.reset(seed=11)
    rng = np.random.default_rng(0)
    for step in range(150):
        if step % 30 == 0:
            picture: Any = env.render()
            assert (picture.shape, picture.dtype) == ((210, 160, 3), np.uint8)
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            small = cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(small, observation[..., -1])
        observation, *_ = env.step(np.int64(rng.integers(6)))
    assert maker.action_names(env) == ["none", "fire", "right", "left", "right+fire", "left+fire"]
    assert frames_per_second(env) == 15
    env.close()


def test_a_screen_that_shows_another_game_is_a_fault() -> None:
    class Paying(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, reward, *others = self.env.step(action)
            return observation, float(reward) + 1.0, *others

    maker = EnvironmentMaker("CartPole-v1", {}, "auto")
    env = ColourScreen(maker.single(), Paying(maker.single()))
    env.reset(seed=1)
    with pytest.raises(Exception, match="have become different"):
        env.step(np.int64(0))


def test_minatars_cells_have_one_colour_for_each_channel() -> None:
    maker = EnvironmentMaker("MinAtar/Breakout-v1", {}, "auto")
    env = maker.single(filmed=True)
    observation, _ = env.reset(seed=0)
    picture: Any = env.render()
    assert picture.shape == (10, 10, 3)
    shown = {tuple(picture[tuple(cell)]) for cell in np.argwhere(observation.any(axis=-1))}
    assert len(shown) >= 3  # paddle, ball, bricks
    assert tuple(picture[8, 0]) not in shown
    assert maker.action_names(env) == ["none", "left", "right"]
    env.close()


def test_an_environment_with_masks_draws_itself_too() -> None:
    maker = EnvironmentMaker("pictures/Drawing-v0", {}, "auto")
    env = maker.single(filmed=True)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (2 + ACTIONS,)
    env.step(np.int64(0))
    assert env.render().shape == (4, 6, 3)
    assert frames_per_second(env) == 7
    assert maker.action_names(env) == ["NORTH", "EAST", "SOUTH", "WEST"]


def test_images_that_are_observed_are_shown_where_nothing_is_drawn() -> None:
    env = EnvironmentMaker("pictures/Images-v0", {}, "auto").single(filmed=True)
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), np.full((8, 10, 3), 5))
    env.step(np.int64(0))
    np.testing.assert_array_equal(env.render(), np.full((8, 10, 3), 6))


@pytest.mark.parametrize(
    ("fault", "words"),
    [("raise", "no paint left, in render\\(\\)"), ("floats", "float64 \\(4, 6, 3\\) from render\\(\\)")],
)
def test_a_render_that_fails_is_a_fault_that_names_it(fault: str, words: str) -> None:
    env = EnvironmentMaker("pictures/Drawing-v0", {"fault": fault}, "auto").single(filmed=True)
    env.reset(seed=0)
    with pytest.raises(JobFault, match=words):
        env.render()


def test_without_any_pictures_the_message_names_what_to_add() -> None:
    with pytest.raises(UserError, match=r"TreasureMaze-v0 draws no pictures.*add 'rgb_array'.*render_modes"):
        EnvironmentMaker("hvd_dqn/TreasureMaze-v0", {}, "auto").single(filmed=True)


def test_the_newest_of_stacked_frames_is_shown_in_the_range_of_its_space() -> None:
    stack = np.zeros((2, 2, 4), np.float32)
    stack[..., 3] = [[0.0, 0.5], [1.0, 2.0]]
    np.testing.assert_array_equal(picture_of(stack, 0.0, 1.0, 4)[..., 0], [[0, 128], [255, 255]])
    np.testing.assert_array_equal(picture_of(stack, -np.inf, np.inf, 4)[..., 1], [[0, 64], [128, 255]])
