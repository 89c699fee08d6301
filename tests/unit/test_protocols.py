"""Laws of the published Atari protocols: Gymnasium's wrappers give the same games, and a lost life ends a task only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from hvd_dqn.cli.arguments import parse
from hvd_dqn.config import flatten
from hvd_dqn.envs.atari import PROTOCOLS, thread_arguments
from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.life_losses import LIFE_LOST, LifeLosses
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.return_range import ReturnRange
from hvd_dqn.errors import UserError
from hvd_dqn.presets import PRESETS
from hvd_dqn.presets import PROTOCOLS as SETTINGS
from hvd_dqn.transition import Transition

from .whole_runs import run

ale_py = pytest.importorskip("ale_py")
from ale_py.vector_env import AtariVectorEnv  # noqa: E402

GAMMA = 0.99


def _reference(game: str, seed: int, repeat: float) -> gym.Env[Any, Any]:
    """Returns Gymnasium's wrapper chain, its emulator seeded as ALE's vector environment seeds its own."""
    gym.register_envs(ale_py)
    game_id = f"ALE/{game}-v5"
    env = gym.make(game_id, disable_env_checker=True, frameskip=1, repeat_action_probability=repeat)
    chain = FrameStackObservation(AtariPreprocessing(env, noop_max=0), 4, padding_type="zero")
    inner: Any = env.unwrapped
    inner.ale.setInt("random_seed", seed)
    inner.load_game()
    return chain


@pytest.mark.parametrize("game", ["Breakout", "Pong", "Qbert"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_games_are_those_of_gymnasiums_wrappers(protocol: str, game: str) -> None:
    """Images, rewards, ends and lives over several games; no-ops, which the two draw differently, are left out."""
    seed, steps = 7, 1_500
    arguments = PROTOCOLS[protocol].arguments | {"noop_max": 0}
    vector = LifeLosses(AtariVectorEnv(game=game.lower(), num_envs=1, num_threads=1, **arguments))
    reference = _reference(game, seed, arguments["repeat_action_probability"])
    emulator: Any = reference.unwrapped
    rng = np.random.default_rng(0)
    images, _ = vector.reset(seed=seed)
    expected, _ = reference.reset()
    np.testing.assert_array_equal(images[0], expected)
    ended, losses, scored = False, 0, 0.0
    for _ in range(steps):
        action = int(rng.integers(vector.single_action_space.n))
        images, reward, terminated, truncated, info = vector.step(np.array([action]))
        if ended:
            expected, _ = reference.reset()
            ended = False
        else:
            before = emulator.ale.lives()
            expected, wanted, ended, cut, _ = reference.step(action)
            assert (float(reward[0]), bool(terminated[0]), bool(truncated[0])) == (wanted, ended, cut)
            assert bool(info[LIFE_LOST][0]) is (emulator.ale.lives() < before)
            losses, scored = losses + bool(info[LIFE_LOST][0]), scored + abs(float(reward[0]))
        np.testing.assert_array_equal(images[0], expected)
    assert scored > 0
    assert (losses > 4) is (game != "Pong")
    vector.close()
    reference.close()


def test_a_game_of_nature_begins_after_up_to_thirty_no_ops_and_one_of_dopamine_at_once() -> None:
    frames: dict[str, set[int]] = {}
    for protocol, resets in (("dopamine", 2), ("nature", 8)):
        vector = AtariVectorEnv(game="pong", num_envs=16, num_threads=2, **PROTOCOLS[protocol].arguments)
        frames[protocol] = set()
        for seed in (0, *[None] * resets):  # a seed loads the ROM again
            frames[protocol] |= set(vector.reset(seed=seed)[1]["episode_frame_number"].tolist())
        vector.close()
    assert frames["dopamine"] == {0}
    assert {0, 30} < frames["nature"] <= set(range(31))


@pytest.mark.parametrize("vectorization", ["auto", "sync", "async"])
def test_a_lost_life_ends_the_task_and_the_game_continues(vectorization: str) -> None:
    """Breakout's five lives: five transitions without a future per game, one return per game, no step left out."""
    maker = EnvironmentMaker("ALE/Breakout-v5", {}, vectorization, "nature")
    seen = ReturnRange(2, GAMMA)
    collector = Collector(maker.vector(2), maker.spaces(), GAMMA, EpisodeSeeds(1), return_range=seen)
    collector.reset()
    rng = np.random.default_rng(0)
    final, games, made, resets = 0, 0, 0, 0
    episodes: list[Any] = []
    while len(episodes) < 4 and made < 4_000:
        resetting = collector._resetting.copy()
        transitions, ended = collector.step(rng.integers(4, size=2))
        made, resets = made + len(transitions.r_t), resets + int(resetting.sum())
        assert len(transitions.r_t) == 2 - int(resetting.sum())
        final, games, episodes = final + int((transitions.discount_t == 0).sum()), games + len(ended), episodes + ended
    assert 5 * games <= final <= 5 * games + 2 * 4  # each of the two open games may have lost four more
    assert resets >= games - 2
    assert all(episode.length > 40 for episode in episodes)
    collector.close()


@pytest.mark.parametrize(("protocol", "losses"), [("nature", 5), ("dopamine", 0)])
def test_an_evaluation_marks_the_lives_that_end_a_task(protocol: str, losses: int) -> None:
    """And plays the whole game: of Breakout's five lives."""
    env = EnvironmentMaker("ALE/Breakout-v5", {}, "auto", protocol).single()
    env.reset(seed=1)
    rng, lost, over = np.random.default_rng(0), 0, False
    while not over:
        _, _, terminated, truncated, info = env.step(rng.integers(4))
        lost, over = lost + int(info.get(LIFE_LOST, False)), terminated or truncated
    assert lost == losses
    env.close()


def test_dopamine_keeps_the_future_of_a_lost_life() -> None:
    maker = EnvironmentMaker("ALE/Breakout-v5", {}, "auto", "dopamine")
    collector = Collector(maker.vector(2), maker.spaces(), GAMMA, EpisodeSeeds(1))
    collector.reset()
    rng, final, games = np.random.default_rng(0), 0, 0
    for _ in range(600):
        transitions, ended = collector.step(rng.integers(4, size=2))
        final, games = final + int((transitions.discount_t == 0).sum()), games + len(ended)
    assert final == games > 0
    collector.close()


def test_rewards_after_a_lost_life_reach_no_transition_from_before_it() -> None:
    """Three-step transitions over a life: their sums end with the life, in the same episode."""
    maker = EnvironmentMaker("ALE/Breakout-v5", {}, "auto", "nature")
    single, joined = (
        Collector(maker.vector(1), maker.spaces(), GAMMA, EpisodeSeeds(1), n_step=steps) for steps in (1, 3)
    )
    ones: list[Transition] = []
    threes: list[Transition] = []
    for collector, found in ((single, ones), (joined, threes)):
        collector.reset()
        rng = np.random.default_rng(0)
        for _ in range(400):
            transitions, ended = collector.step(rng.integers(4, size=1))
            if len(transitions.r_t):
                found.append(transitions)
            if ended:
                break
        collector.close()
    rewards = np.concatenate([step.r_t for step in ones])
    alive = np.concatenate([step.discount_t for step in ones])
    sums = np.concatenate([step.r_t for step in threes])
    discounts = np.concatenate([step.discount_t for step in threes])
    assert len(sums) == len(rewards)
    assert (alive == 0).sum() >= 5
    for start, (total, left) in enumerate(zip(sums, discounts, strict=True)):
        expected, factor = 0.0, 1.0
        for step in range(start, min(start + 3, len(rewards))):
            expected, factor = expected + factor * rewards[step], factor * alive[step]
        assert (total, left) == (pytest.approx(expected), pytest.approx(factor))


# In an interpreter of its own, where no thread of another test begins or ends.
_THREADS_OF_ONE_CORE = """
import os
from hvd_dqn.envs.make import EnvironmentMaker

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
before = set(os.listdir("/proc/self/task"))
vector = EnvironmentMaker("ALE/Pong-v5", {}, "auto").vector(4)
print(len(set(os.listdir("/proc/self/task")) - before))
vector.close()
"""


def test_ale_gets_threads_for_the_cores_of_this_rank_alone() -> None:
    assert thread_arguments("CartPole-v1", {}, 4) == {}
    assert thread_arguments("ALE/Pong-v5", {"num_threads": 3}, 4) == {}
    command = [sys.executable, "-c", _THREADS_OF_ONE_CORE]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1] == "1"


@pytest.mark.parametrize(
    ("env", "arguments", "vectorization", "says"),
    [
        ("CartPole-v1", {}, "auto", "CartPole-v1 is none of ALE's: leave --protocol out, or give --env ALE/Pong-v5"),
        ("ALE/Pong-v5", {}, "envpool", "use --vectorization auto"),
        ("ALE/Pong-v5", {"noop_max": 5}, "auto", "has noop_max 31, and --env-kwargs has 5: leave one of the two out"),
    ],
)
def test_what_contradicts_a_protocol_is_refused(
    env: str, arguments: dict[str, Any], vectorization: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        EnvironmentMaker(env, arguments, vectorization, "nature")


def test_other_arguments_of_the_games_may_be_given_with_a_protocol() -> None:
    EnvironmentMaker("ALE/Pong-v5", {"num_threads": 1, "frameskip": 4}, "auto", "nature").vector(2).close()


def test_a_game_without_its_rom_or_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no environment 'ALE/Pongg-v5'"):
        EnvironmentMaker("ALE/Pongg-v5", {}, "auto")
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot make ALE/Pong-v5.*pong\.bin"):
        EnvironmentMaker("ALE/Pong-v5", {}, "auto").spaces()
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(UserError, match=r"pip install 'hvd-dqn\[atari\]'"):
        EnvironmentMaker("ALE/Pong-v5", {}, "auto")


def _parse(*arguments: str) -> dict[str, Any]:
    return flatten(parse(arguments, lambda path: {}, quiet=True))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_on_the_command_line_or_in_a_file_brings_its_settings(protocol: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f'protocol = "{protocol}"\n')
    wanted = {**SETTINGS[protocol], "protocol": protocol}
    for given in (("--protocol", protocol), (f"--config={tmp_path / 'run.toml'}",)):
        for more in ((), ("--preset", "atari"), ("--preset", "atari-nature-dqn"), ("--preset", "atari-dopamine-iqn")):
            parsed = _parse("--env", "ALE/Breakout-v5", *given, *more)
            assert {name: parsed[name] for name in wanted} == wanted
            assert parsed["clip_rewards"] is True


def test_a_setting_that_contradicts_the_protocol_is_refused_with_the_flag() -> None:
    with pytest.raises(UserError, match=r"--protocol nature has --evaluation-epsilon 0.05, and it is 0.0: leave one"):
        _parse("--env", "ALE/Pong-v5", "--protocol", "nature", "--evaluation-epsilon", "0")


def test_presets_of_atari_name_their_protocol() -> None:
    for name, preset in PRESETS.items():
        if name.startswith("atari-"):
            assert preset["protocol"] == name.split("-")[1]
            assert SETTINGS[preset["protocol"]].items() <= preset.items()


def test_a_run_reports_its_protocol_its_frames_and_the_human_normalised_score(tmp_path: Path) -> None:
    flags = (
        *("--env", "ALE/Pong-v5", "--protocol", "nature", "--total-env-steps", "60", "--learning-starts", "20"),
        *("--num-envs", "2", "--global-batch-size", "4", "--network", "mlp", "--hidden-sizes", "4"),
        *("--evaluation-period", "0", "--final-evaluation-episodes", "1", "--progress", "plain", "--seed", "1"),
        *("--replay-capacity", "100", "--runs-dir", str(tmp_path)),
    )
    ended = run(*flags)
    assert ended.code == 0, ended.printed
    assert "nature: up to 30 no-ops begin a game; in training a lost life ends the task" in ended.printed
    assert "4 per env step, 240 in 60 env steps" in ended.printed
    assert "Evaluation with epsilon 0.05 of the" in ended.printed
    assert "human-normalised " in ended.printed
    refused = run("--env", "CartPole-v1", "--protocol", "nature", "--runs-dir", tmp_path)
    assert (refused.code, "is none of ALE's" in refused.printed) == (2, True)
