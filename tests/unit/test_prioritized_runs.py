"""Whole short runs with prioritised replay and n-step transitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .whole_runs import QUICK, run

GENERAL = (*QUICK, "--learner", "tensorflow")
PARTS = {
    "prioritized": ("--replay", "prioritized", "--importance-rise-env-steps", "120"),
    "five steps": ("--n-step", "5"),
    "both": ("--replay", "prioritized", "--n-step", "3"),
}


def _newest(runs: Path, name: str) -> Path:
    return max((runs / "CartPole-v1" / name / "checkpoints").glob("*/manifest.json")).parent


def _state(runs: Path, name: str) -> Any:
    return json.loads((_newest(runs, name) / "state.json").read_text())


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("boundary", ["keep", "reset"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(parts: str, boundary: str, tmp_path: Path) -> None:
    """In the same weights, priorities and last steps of open episodes."""
    job = (*GENERAL, *PARTS[parts], "--runs-dir", str(tmp_path), "--checkpoint-boundary", boundary)
    assert run(*job, "--name", "whole", "--total-env-steps", "150").code == 0
    assert run(*job, "--name", "parts", "--total-env-steps", "50").code == 0
    resumed = run("--resume", tmp_path / "CartPole-v1" / "parts", "--total-env-steps", "150")
    assert resumed.code == 0, resumed.printed
    learners = [(_newest(tmp_path, name) / "learner.safetensors").read_bytes() for name in ("whole", "parts")]
    assert learners[0] == learners[1]
    assert _state(tmp_path, "whole")["ranks"] == _state(tmp_path, "parts")["ranks"]


def test_a_run_resumes_with_another_replay(tmp_path: Path) -> None:
    """Transitions of a uniform one are as new ones; back in a uniform one, priorities are left behind."""
    job = (*GENERAL, "--runs-dir", tmp_path, "--name", "run")
    assert run(*job, "--total-env-steps", "50").code == 0
    for total, replay in ((100, "prioritized"), (150, "uniform")):
        resumed = run("--resume", tmp_path / "CartPole-v1" / "run", "--total-env-steps", str(total), "--replay", replay)
        assert resumed.code == 0, resumed.printed
        (rank,) = _state(tmp_path, "run")["ranks"]
        assert total - 10 < rank["stored"] <= total
        assert bool(rank["replay_state"]["dict"]) == (replay == "prioritized")


def test_learning_waits_for_the_first_transition_of_many_steps(tmp_path: Path) -> None:
    """Two environments take 60 env steps to one of 30 steps each, and learning would start at 20."""
    job = (*GENERAL, "--env", "MountainCar-v0", "--n-step", "30", "--runs-dir", tmp_path, "--name", "run")
    ended = run(*job, "--total-env-steps", "150")
    assert ended.code == 0, ended.printed
    state = tmp_path / "MountainCar-v0" / "run" / "checkpoints" / "000000000150" / "state.json"
    assert json.loads(state.read_text())["counters"]["learner_steps"] == 150 - 60
