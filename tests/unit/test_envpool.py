"""EnvPool's environments keep the collector's promises, and play the game that Gymnasium's play."""

from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np
import pytest

from hvd_dqn.envs.collector import Collector, Episode
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.maze import MAZE_ID
from hvd_dqn.errors import UserError

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="EnvPool 1.1 is made for Python 3.11 and later")


def _collector(env: str, num_envs: int, seed: int) -> Collector:
    maker = EnvironmentMaker(env, {}, "envpool")
    collector = Collector(maker.vector(num_envs), maker.spaces(), EpisodeSeeds(seed))
    collector.reset()
    return collector


@pytest.mark.parametrize("env", ["CartPole-v1", "LunarLander-v3"])
def test_the_same_seed_gives_the_same_steps_and_another_gives_others(env: str) -> None:
    """Also from a pool that has been used: a checkpoint resets it."""
    actions = np.random.default_rng(0).integers(2, size=(60, 3))
    seen = []
    used = _collector(env, 3, 7)
    used.step(actions[0])
    used.reset()
    for collector in (_collector(env, 3, 7), used, _collector(env, 3, 8)):
        steps = [collector.step(step)[0] for step in actions]
        seen.append(np.concatenate([step.s_t for step in steps]))
        collector.close()
    np.testing.assert_array_equal(seen[0], seen[1])
    assert seen[0].shape != seen[2].shape or (seen[0] != seen[2]).any()


def test_an_episodes_end_and_the_reset_after_it_are_told_apart() -> None:
    """One environment, pushed to the right until it falls: no transition leads from one episode into the next."""
    collector = _collector("CartPole-v1", 1, 3)
    episodes: list[Episode] = []
    previous_ended = True
    previous = np.zeros((1, 4), np.float32)
    while len(episodes) < 3:
        transitions, ended = collector.step(np.array([1]))
        episodes += ended
        if len(transitions.a_tm1):
            if not previous_ended:
                np.testing.assert_array_equal(transitions.s_tm1, previous)
            previous, previous_ended = transitions.s_t, bool(transitions.terminated[0])
            assert bool(ended) == previous_ended
        else:
            assert previous_ended, "a reset step without an end before it"
    assert all(episode.episode_return == episode.length for episode in episodes)
    assert all(7 <= episode.length <= 12 for episode in episodes)
    collector.close()


def test_cartpole_follows_gymnasiums_dynamics() -> None:
    """One step from the same state, up to single precision."""
    collector = _collector("CartPole-v1", 5, 1)
    start = collector.observation.copy()
    transitions, _ = collector.step(np.array([0, 1, 0, 1, 1]))
    for s, a, s_t in zip(start, transitions.a_tm1, transitions.s_t, strict=True):
        env = gym.make("CartPole-v1").unwrapped
        env.reset()
        env.state = tuple(map(float, s))
        expected, *_ = env.step(int(a))
        np.testing.assert_allclose(s_t, expected, rtol=1e-4, atol=1e-5)
    collector.close()


def test_time_limits_truncate() -> None:
    """LunarLander, hovering for a thousand steps at most."""
    collector = _collector("LunarLander-v3", 8, 0)
    lengths: list[int] = []
    truncated = 0
    for step in range(1_100):
        transitions, ended = collector.step(np.full(8, 2 * (step % 2)))
        lengths += [episode.length for episode in ended]
        truncated += int((transitions.truncated & ~transitions.terminated).sum())
    assert max(lengths) <= 1_000
    assert truncated == sum(length == 1_000 for length in lengths)
    collector.close()


def test_evaluation_sees_gymnasiums_own_environment_where_it_looks_alike() -> None:
    maker = EnvironmentMaker("LunarLander-v3", {}, "envpool")
    assert maker.single().unwrapped.__class__.__module__.startswith("gymnasium.")
    assert maker.spaces().observation_shape == (8,)


def test_what_envpool_does_not_have_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserError, match=f"EnvPool has no {MAZE_ID}: use --vectorization auto"):
        EnvironmentMaker(MAZE_ID, {}, "envpool").vector(2)
