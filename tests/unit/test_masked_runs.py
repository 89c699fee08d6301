"""Whole short runs of an environment with action masks: no invalid action is ever taken."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .masked_environments import Gated
from .whole_runs import QUICK, run

JOB = (*QUICK, "--env", "Gated-v0", "--total-env-steps", "150", "--final-evaluation-episodes", "5")
FORMS = [
    ("sync", {"form": "infos"}),
    ("sync", {"form": "dict"}),
    ("native", {"form": "category"}),
    ("native", {"form": "dict", "mode": "SameStep"}),
]


def _steps(*arguments: str | Path) -> tuple[int, int]:
    """Returns how many valid and how many invalid actions a run takes."""
    Gated.valid_steps = Gated.invalid_steps = 0
    ended = run(*JOB, *arguments)
    assert ended.code == 0, ended.printed
    assert ("action masks" in ended.printed) == ("none" not in str(arguments))
    assert "tensorflow (any" in ended.printed or "none" in str(arguments)
    return Gated.valid_steps, Gated.invalid_steps


@pytest.mark.parametrize(("vectorization", "form"), FORMS)
@pytest.mark.parametrize("epsilon", ["1", "0"])
def test_no_invalid_action_is_taken(vectorization: str, form: dict[str, Any], epsilon: str, tmp_path: Path) -> None:
    """In training nor in evaluation, at random nor greedily."""
    how = ("--vectorization", vectorization, "--env-kwargs", json.dumps(form), "--runs-dir", tmp_path)
    valid, invalid = _steps(*how, "--epsilon-start", epsilon, "--epsilon-end", epsilon)
    assert valid > 100
    assert invalid == 0


def test_the_same_run_without_masks_takes_invalid_actions(tmp_path: Path) -> None:
    how = ("--vectorization", "sync", "--env-kwargs", '{"form": "none"}', "--runs-dir", tmp_path)
    assert _steps(*how, "--epsilon-start", "1", "--epsilon-end", "1")[1] > 20


def test_a_mask_of_zeros_ends_the_run(tmp_path: Path) -> None:
    fault = ("--vectorization", "sync", "--env-kwargs", '{"fault": "zeros", "fault_at": 12}')
    ended = run(*JOB, *fault, "--runs-dir", tmp_path)
    assert ended.code == 2
    assert re.search("environment [01] returned an action mask of zeros at its step 12", ended.printed), ended.printed


@pytest.mark.parametrize("algorithm", ["dqn", "munchausen", "iqn"])
@pytest.mark.parametrize("boundary", ["keep", "reset"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(algorithm: str, boundary: str, tmp_path: Path) -> None:
    """In the same weights, replay and last steps of open episodes, with n-step transitions and priorities."""
    job = (
        *(*JOB, "--vectorization", "sync", "--runs-dir", tmp_path, "--checkpoint-boundary", boundary),
        *("--algorithm", algorithm, "--n-step", "3", "--replay", "prioritized"),
    )
    assert run(*job, "--name", "whole").code == 0
    assert run(*job, "--name", "parts", "--total-env-steps", "50").code == 0
    resumed = run("--resume", tmp_path / "Gated-v0" / "parts", "--total-env-steps", "150")
    assert resumed.code == 0, resumed.printed
    places = [
        max((tmp_path / "Gated-v0" / name / "checkpoints").glob("*/manifest.json")).parent
        for name in ("whole", "parts")
    ]
    learners = [(place / "learner.safetensors").read_bytes() for place in places]
    assert learners[0] == learners[1]
    ranks = [json.loads((place / "state.json").read_text())["ranks"] for place in places]
    assert ranks[0] == ranks[1]
