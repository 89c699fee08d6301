"""The programs in examples/ run as their documents say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.make import EnvironmentMaker

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_search_stops_bad_trials_and_continues_its_study(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "tune.py"), "--env-steps", "2000", "--trials", "6"]
    for finished in ("best of ", "best of "):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        assert finished in done.stdout
    assert "pruned" in done.stderr
    assert len(list((tmp_path / "runs-tune" / "CartPole-v1").iterdir())) == 12


def test_robots_are_trained_once_each_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    core = min(os.sched_getaffinity(0))
    flags = f"--tasks reacher --seeds 0 --total-env-steps 1400 --core {core} --runs-dir runs --results results.jsonl"
    command = [sys.executable, str(ROOT / "examples" / "robots" / "learn.py"), *flags.split(), "--plot", "."]
    for lines in (1, 1):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
        assert len(records) == lines
    assert records[0]["training"][-1][0] == 1400
    assert (tmp_path / "reacher-v5.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("env", "module"), [("Reacher-v5", "mujoco"), ("./examples/robots/tasks.py:walker-walk-v0", "dm_control")]
)
def test_a_robots_open_episodes_continue_from_their_actions(
    env: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A robot is determined by seed and actions, or the restored collector would refuse it."""
    pytest.importorskip(module)
    monkeypatch.chdir(ROOT)
    maker = EnvironmentMaker(env, {}, "sync", action_bins=3)
    spaces = maker.spaces()
    assert spaces.observation_dtype == np.float32
    rng = np.random.default_rng(0)
    first, second = (Collector(maker.vector(2), spaces, 0.99, EpisodeSeeds(5)) for _ in range(2))
    first.reset()
    for _ in range(60):  # Reacher's second episode
        first.step(rng.integers(3, size=(2, len(spaces.joint_bins))))
    episodes = first.state().episodes
    assert second.restore([*episodes], None, 9) == 2
    np.testing.assert_array_equal(second.observation, first.observation)
    for collector in (first, second):
        collector.close()
    actions = episodes[0].actions
    assert actions is not None
    assert actions.shape == ((9 if module == "mujoco" else 60), len(spaces.joint_bins))
