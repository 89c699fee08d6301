"""Whole runs of environments unlike Gymnasium's own: they train, or the run says what is amiss."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

from hvd_dqn.cli import evaluate, watch

from .whole_runs import QUICK, Ended, run, run_main


class Walk(gym.Env[Any, Any]):
    """Episodes of 30 steps that show their age and pay 1 for each step."""

    observation_space: gym.Space[Any] = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.age = 0
        return self.observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age += 1
        return self.observation(), 1.0, self.age == 30, False, {}

    def observation(self) -> np.ndarray:
        return np.full(self.observation_space.shape or (), self.age / 30, np.float32)


class FloatImage(Walk):
    """Shows images of floats from 0 to 1."""

    observation_space = gym.spaces.Box(0, 1, (8, 8, 3), np.float32)


class Lever(Walk):
    """Takes NumPy's integers alone, as Gymnasium's own vector environments hand them on."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert type(action) is np.int64, type(action)
        return super().step(action)

    def render(self) -> Any:
        return np.full((40, 40, 3), self.age, np.uint8)


class Port(Walk):
    """Can exist once at a time, as a robot or a licence."""

    existing = 0

    def __init__(self) -> None:
        if Port.existing:
            raise OSError("Address already in use")
        Port.existing += 1

    def close(self) -> None:
        Port.existing -= 1


class SlowStart(Walk):
    """Its constructor takes a while."""

    def __init__(self) -> None:
        time.sleep(0.7)


class NoStreams(Walk):
    """Takes the standard streams away, and in the end raises."""

    def __init__(self, last: int) -> None:
        self.left = last

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        sys.stdout = sys.stderr = None
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("gone")
        return super().step(action)


class ManyActions(Walk):
    """Has twenty thousand actions."""

    action_space = gym.spaces.Discrete(20_000)


class Grid(Walk):
    """A field of 5 x 5 shown by its raw coordinates: the goal in the far corner pays 1, and each step costs 0.01."""

    observation_space = gym.spaces.Box(0, 4, (2,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.place = np.zeros(2, np.float32)
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age += 1
        self.place = np.clip(self.place + [(0, 1), (0, -1), (1, 0), (-1, 0)][action], 0, 4).astype(np.float32)
        there = bool((self.place == 4).all())
        return self.observation(), 1.0 if there else -0.01, there, self.age == 50, {}

    def observation(self) -> np.ndarray:
        return self.place.copy()


def _train(env: type[gym.Env[Any, Any]], folder: Path, *flags: str) -> Ended:
    """Runs 100 env steps, unless the flags say otherwise, in `folder / "run"`, and expects exit code 0."""
    steps = () if "--total-env-steps" in flags else ("--total-env-steps", "100")
    own = ("--env", f"{__name__}:{env.__name__}", "--runs-dir", str(folder))
    ended = run(*(flags if "--preset" in flags else (*QUICK, *flags)), *steps, *own)
    assert ended.code == 0, ended.printed
    return ended


def test_a_run_warns_of_images_of_floats_that_it_flattens(tmp_path: Path) -> None:
    words = "observations of shape (8, 8, 3) are flattened for an MLP"
    printed = _train(FloatImage, tmp_path).printed
    assert printed.count(words) == 1
    assert "give --network cnn, or convert them to uint8" in printed
    assert words not in _train(FloatImage, tmp_path, "--network", "mlp").printed


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_is_handed_the_same_type_of_action_everywhere(vectorization: str, tmp_path: Path) -> None:
    """In training, where a resumed run takes an open episode's actions again, in evaluation and in films."""
    _train(Lever, tmp_path, "--vectorization", vectorization)
    (configuration,) = tmp_path.rglob("config.json")
    resumed = run("--resume", configuration.parent, "--total-env-steps", "150")
    assert resumed.code == 0, resumed.printed
    if vectorization == "sync":
        for epsilon in ("0", "0.5"):
            shown = (str(configuration.parent), "--epsilon", epsilon)
            ended = run_main(evaluate.main, "evaluate", *shown, "--episodes", "2")
            assert ended.code == 0, ended.printed
            film = ("--format", "gif", "--max-steps", "3", "--output", str(tmp_path / f"{epsilon}.gif"))
            ended = run_main(watch.main, "watch", *shown, *film)
            assert ended.code == 0, ended.printed


def test_an_environment_that_can_exist_once_trains_to_its_end(tmp_path: Path) -> None:
    """As docs/how-to/own-environment.md says."""
    once = ("--num-envs", "1", "--evaluation-period", "0", "--final-evaluation-episodes", "20")
    assert "over 20 new episodes" in _train(Port, tmp_path, *once).printed
    assert Port.existing == 0


def test_a_lone_rank_waits_for_a_constructor(tmp_path: Path) -> None:
    """It takes longer than the limit, which is for ranks that wait for one another."""
    ended = _train(SlowStart, tmp_path, "--num-envs", "1", "--stall-timeout-seconds", "0.1")
    assert "got no further" not in ended.printed


@pytest.mark.parametrize("display", ["plain", "off"])
def test_an_environment_cannot_take_the_jobs_standard_streams(display: str, tmp_path: Path) -> None:
    """What the run reports is printed to its end, and why it fails."""
    whole = _train(NoStreams, tmp_path, "--env-kwargs", '{"last": 1000}', "--progress", display)
    assert "100 env steps and 80 learner steps" in whole.stdout
    job = ("--env", f"{__name__}:NoStreams", "--runs-dir", str(tmp_path), "--total-env-steps", "100")
    failed = run(*QUICK, *job, "--env-kwargs", '{"last": 30}')
    assert failed.code == 2
    assert "environment 0 raised RuntimeError: gone, in step() at its step 30" in failed.printed


@pytest.mark.parametrize("learner", ["native", "tensorflow"])
def test_twenty_thousand_actions_are_learned_in_little_memory(
    learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch of 8 and of 4 features there are about a million outputs and weights of 4 bytes, copies included."""
    job = ("--learner", learner, "--env", f"{__name__}:ManyActions", "--runs-dir", str(tmp_path))
    monkeypatch.setattr("hvd_dqn.training.memory.usable_memory", lambda: 3_000_000)
    refused = run(*QUICK, *job, "--total-env-steps", "100")
    assert (refused.code, "this job takes at least" in refused.printed) == (2, True), refused.printed
    monkeypatch.setattr("hvd_dqn.training.memory.usable_memory", lambda: 8_000_000)
    assert "100 env steps and 80 learner steps" in _train(ManyActions, tmp_path, "--learner", learner).printed


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_a_grid_of_raw_coordinates_is_learned_with_the_default_settings(seed: str, tmp_path: Path) -> None:
    """Eight steps lead to the goal, of which seven cost. With the outputs of He's initial weights no seed learns it."""
    short = ("--total-env-steps", "10000", "--evaluation-period", "0", "--final-evaluation-episodes", "1")
    printed = _train(Grid, tmp_path, *short, "--preset", "dqn", "--seed", seed).printed
    assert "mean return 0.93," in printed, printed
