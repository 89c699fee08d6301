"""Laws of Atari games: one task whatever steps it, learned from clipped rewards and reported in the game's score."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from hvd_dqn.cli.arguments import parse
from hvd_dqn.config import Config, flatten, replace
from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.seeded_episodes import SeededEpisodes
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.presets import PRESETS

from .toy_environments import Counting

GAME = "ALE/MsPacman-v5"
pooled = pytest.mark.skipif(sys.version_info < (3, 11), reason="EnvPool 1.1 is made for Python 3.11 and later")


@pytest.mark.parametrize("vectorization", ["auto", "native", "sync", "async", pytest.param("envpool", marks=pooled)])
def test_a_game_is_one_task_whatever_steps_it(vectorization: str) -> None:
    """The same images and actions, and the game's own points: a pellet is worth ten."""
    pytest.importorskip("ale_py")
    maker = EnvironmentMaker(GAME, {}, vectorization)
    assert maker.spaces() == Spaces((84, 84, 4), np.dtype(np.uint8), 0, 9, stacked_frames=4)
    vector = maker.vector(2)
    vector.reset(seed=[1, 2] if vectorization in ("sync", "async") else 1)
    points: set[float] = set()
    for step in range(140):  # the game begins after about 70
        images, reward, *_ = vector.step(np.full(2, 1 + step // 10 % 4))
        points |= set(np.asarray(reward, float).tolist())
    assert images.shape == (2, 84, 84, 4)
    assert 10.0 in points
    vector.close()


@pytest.mark.parametrize("vectorization", ["native", "sync", pytest.param("envpool", marks=pooled)])
@pytest.mark.parametrize("sticky", [{}, {"repeat_action_probability": 0.0}], ids=["as registered", "not sticky"])
def test_actions_are_as_sticky_whatever_steps_a_game(vectorization: str, sticky: dict[str, float]) -> None:
    """The registered quarter of actions that are repeated, or those that were asked for.

    Without a random start, only repeated actions make the games of two seeds differ.
    """
    pytest.importorskip("ale_py")
    no_start = {"noop_max": 1 if vectorization == "envpool" else 0}
    vector = EnvironmentMaker(GAME, no_start | sticky, vectorization).vector(2)
    vector.reset(seed=[1, 2] if vectorization == "sync" else 1)
    images = [vector.step(np.full(2, 1 + step // 10 % 4))[0].copy() for step in range(200)]
    assert any((first != second).any() for first, second in images) == (not sticky)
    vector.close()


def test_arguments_of_the_vector_form_reach_a_game_stepped_in_either_way() -> None:
    pytest.importorskip("ale_py")
    for vectorization in ("auto", "sync"):
        maker = EnvironmentMaker(GAME, {"stack_num": 2, "reward_clipping": False}, vectorization)
        assert maker.spaces().observation_shape == (84, 84, 2)


@pytest.mark.parametrize("clips", [True, False])
def test_what_is_learned_from_is_clipped_and_what_is_reported_is_not(clips: bool) -> None:
    members: Any = [lambda: SeededEpisodes(Counting(length=3))]
    vector = SyncVectorEnv(members, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP)
    spaces = Spaces((2,), np.dtype(np.float32), 0, 2)
    collector = Collector(vector, spaces, 0.99, EpisodeSeeds(1), clip_rewards=clips)
    collector.reset()
    steps = [collector.step(np.zeros(1, np.int64)) for _ in range(3)]
    rewards = [float(transitions.r_t[0]) for transitions, _ in steps]
    assert rewards == ([1.0, 1.0, 1.0] if clips else [11.0, 12.0, 13.0])
    assert [episode.episode_return for episode in steps[-1][1]] == [36.0]


def _parse(*arguments: str, run_config: dict[str, Any] | None = None) -> dict[str, Any]:
    return flatten(parse(arguments, lambda path: run_config or {}, quiet=False))


def test_a_game_takes_the_presets_settings_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    settings = flatten(replace(Config(), PRESETS["atari"] | {"env": GAME}))
    assert _parse("--env", GAME) == settings
    assert capsys.readouterr().err.count("takes the settings of --preset atari") == 1
    assert _parse("--env", GAME, "--train-period", "8") == settings | {"train_period": 8}
    assert settings["clip_rewards"] is True


def test_a_preset_that_is_given_and_a_run_that_is_resumed_keep_their_settings() -> None:
    assert _parse("--env", GAME, "--preset", "dqn") == flatten(Config()) | {"env": GAME}
    before = flatten(Config()) | {"env": GAME, "gamma": 0.5}
    assert _parse("--resume", "there", run_config=before) == before | {"resume": "there"}
