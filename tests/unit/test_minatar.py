"""Laws of MinAtar's games as they are played here: any seed's episode can be played again, saved, and continued."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.open_episode import CollectorState

pytest.importorskip("minatar")

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")


def _collector(game: str, first_env: int = 0, num_envs: int = 2) -> Collector:
    maker = EnvironmentMaker(f"MinAtar/{game}-v0", {}, "auto")
    return Collector(maker.vector(num_envs), maker.spaces(), 0.99, EpisodeSeeds(7, first_env))


def _play(collector: Collector, rng: np.random.Generator, steps: int) -> list[bytes]:
    seen = []
    for _ in range(steps):
        transition, _ = collector.step(rng.integers(6, size=collector.num_envs))
        seen.append(b"".join(column.tobytes() for column in transition))
    return seen


@pytest.mark.parametrize("game", GAMES)
def test_an_episode_depends_on_its_seed_and_actions_alone(game: str) -> None:
    """Also on no action of the episode before, which the package repeats by chance."""
    runs = []
    for warmed_up in (False, True):
        collector = _collector(game)
        collector.reset()
        if warmed_up:
            _play(collector, np.random.default_rng(5), 37)
            collector.reset()
        runs.append(_play(collector, np.random.default_rng(0), 300))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("game", GAMES)
def test_open_episodes_continue_in_other_environments(game: str) -> None:
    """Through what a checkpoint holds of them."""
    first, second = _collector(game), _collector(game)
    first.reset()
    _play(first, np.random.default_rng(1), 211)
    saved = CollectorState.from_json(first.state().to_json())
    assert second.restore(list(saved.episodes), saved.generator, 0) == 2
    assert _play(first, np.random.default_rng(2), 200) == _play(second, np.random.default_rng(2), 200)


def test_sixteen_filters_are_chosen_for_its_images() -> None:
    spaces = EnvironmentMaker("MinAtar/Breakout-v0", {}, "auto").spaces()
    assert (spaces.observation_shape, spaces.num_actions) == ((10, 10, 4), 6)
