"""Whole runs on actions of several joints: they train and are used as others are, or are refused with the remedy."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fastapi.testclient import TestClient

import hvd_dqn
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.training.film import _Recorder

from .whole_runs import QUICK, run

COMMAND = Path(sys.executable).with_name("hvd-dqn")
SOURCE = """
import gymnasium as gym
import numpy as np

class Crane(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gym.spaces.MultiDiscrete([2, 3])

    def __init__(self, infos=None, masked=False, render_mode=None):
        self.infos = infos or {}
        if masked:
            mask = gym.spaces.Box(0, 1, (5,), np.int8)
            self.observation_space = gym.spaces.Dict({"own": self.observation_space, "action_mask": mask})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.place = 0, self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.place.copy(), self.infos

    def step(self, action):
        assert self.action_space.contains(np.asarray(action)), action
        self.steps += 1
        self.place += np.array([2 * action[0] - 1, action[1] - 1], np.float32) / 4
        return self.place.copy(), -float(np.abs(self.place).sum()), False, self.steps == 12, self.infos

    def render(self):
        return np.full((40, 40, 3), 10 * self.steps, np.uint8)
"""
DECQN = ("--algorithm", "decqn", "--double", "--loss", "huber", "--n-step", "3", "--replay", "prioritized")


@pytest.fixture(scope="module")
def crane(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the --env of a crane of two joints, with two and three bins."""
    file = tmp_path_factory.mktemp("own") / "crane.py"
    file.write_text(SOURCE)
    return f"{file}:Crane"


@pytest.fixture(scope="module")
def trained(crane: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the directory of a short run."""
    folder = tmp_path_factory.mktemp("runs")
    ended = run(*QUICK, *DECQN, "--env", crane, "--total-env-steps", "200", "--runs-dir", folder, "--name", "run")
    assert ended.code == 0, ended.printed
    return next(folder.rglob("config.json")).parent


def _command(*arguments: object) -> str:
    done = subprocess.run([str(COMMAND), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_gets_an_action_that_the_environment_takes(trained: Path) -> None:
    agent = hvd_dqn.load(trained, "last")
    env = agent.environment()
    observation, _ = env.reset(seed=1)
    values = agent.action_values(observation)
    assert values.shape == (2, 3)
    assert np.isneginf(values).tolist() == [[False, False, True], [False, False, False]]
    action = agent.policy(observation)
    np.testing.assert_array_equal(action, values.argmax(axis=1))
    env.step(action)
    assert agent.policy(np.stack([observation] * 4)).shape == (4, 2)


@pytest.mark.parametrize("name", ["keras", "onnx", "safetensors"])
def test_an_export_gives_the_values_of_every_joint(trained: Path, name: str, tmp_path: Path) -> None:
    printed = _command("export", trained, "--format", name, "--output", tmp_path / "out")
    assert "action_values: float32 [N, 2, 3], each joint's greedy bin is the largest one's" in printed
    assert "512 observations, the same greedy actions" in printed
    assert json.loads((tmp_path / "out" / "model.json").read_text())["actions"] == [2, 3]


def test_the_program_serves_one_bin_for_each_joint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _command("serve-example", trained, "--output", tmp_path / "served")
    monkeypatch.syspath_prepend(str(tmp_path / "served"))
    monkeypatch.delitem(sys.modules, "serve", raising=False)
    answer = TestClient(importlib.import_module("serve").app).post("/act", json={"observation": [0.5, -1.0]}).json()
    values = hvd_dqn.load(trained).action_values(np.array([0.5, -1.0], np.float32))
    assert answer["action"] == values.argmax(axis=1).tolist()
    assert [[q is None for q in joint] for joint in answer["action_values"]] == np.isneginf(values).tolist()
    monkeypatch.delitem(sys.modules, "serve")


def test_it_is_evaluated_filmed_and_reported(trained: Path, tmp_path: Path) -> None:
    (total,) = json.loads(_command("evaluate", trained, "--episodes", 1, "--json"))["returns"]
    filmed = _command("watch", trained, "--format", "gif", "--output", tmp_path / "film.gif")
    assert re.search(rf"return {total:,.2f} in 12 steps", filmed)
    assert (tmp_path / "film.gif").stat().st_size > 1000
    _command("report", trained, "--output", tmp_path / "page.html")
    assert "decqn" in (tmp_path / "page.html").read_text()


def test_a_film_has_a_row_for_each_bin_that_a_joint_has() -> None:
    spaces = Spaces((1,), np.dtype(np.float32), 0, 3, (2, 3))

    class Still(gym.Env[Any, Any]):
        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            return np.zeros(1), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return np.zeros(1), 1.0, True, False, {}

        def render(self) -> Any:
            return np.zeros((2, 2, 3), np.uint8)

    recorder = _Recorder(Still(), spaces)
    recorder.reset()
    recorder.values = np.array([[1.0, 4.0, -np.inf], [0.5, 6.0, 2.0]], np.float32)
    recorder.step(np.array([1, 2]))
    assert recorder.episode.values[0].tolist() == [1.0, 4.0, 0.5, 6.0, 2.0]
    assert recorder.episode.chosen == [(1, 4)]
    assert recorder.episode.best == [5.0]


@pytest.mark.parametrize(
    ("env", "flags", "words"),
    [
        ("CRANE", ("--algorithm", "dqn"), "learns Discrete actions, and those of .* have 2 joints: give --algorithm d"),
        ("CRANE", ("--algorithm", "c51"), "give --algorithm decqn"),
        ("CRANE", (*DECQN, "--action-bins", "2"), "--action-bins 2 is for Box actions, .* leave it out"),
        ("CRANE", (*DECQN, "--env-kwargs", '{"infos": {"action_mask": 1}}'), "masks are for Discrete actions"),
        ("CRANE", (*DECQN, "--env-kwargs", '{"masked": true}'), "for Discrete actions a Dict of one of them"),
        ("CRANE", (*DECQN, "--learner", "native"), "the native learner cannot run this job"),
        ("CartPole-v1", DECQN, "learns MultiDiscrete actions, .* 2 Discrete ones: give --algorithm dqn"),
        ("CartPole-v1", ("--action-bins", "2"), "--action-bins 2 is for Box actions, .* leave it out"),
        ("Pendulum-v1", DECQN, "give --action-bins 2"),
        ("Pendulum-v1", ("--action-bins", "3"), "give --algorithm decqn"),
        ("Pendulum-v1", (*DECQN, "--action-bins", "1"), "--action-bins is 1: give at least 2"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    env: str, flags: tuple[str, ...], words: str, crane: str, tmp_path: Path
) -> None:
    place = ("--total-env-steps", "100", "--runs-dir", tmp_path, "--env", crane if env == "CRANE" else env)
    ended = run(*QUICK, *place, *flags)
    assert ended.code == 2, ended.printed
    assert re.search(words, " ".join(ended.printed.split())), ended.printed
