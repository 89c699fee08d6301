"""A new algorithm, network or replay is one file and one registered name: nothing else of the package changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launching import PROGRAMS, newest_checkpoint, read_metrics, run_well

pytestmark = pytest.mark.parallel

FOREIGN = ("--algorithm", "fifty-one", "--network", "two-headed", "--replay", "by-priority", "--gamma", "0.95")
RUN = (
    *("--num-envs", "4", "--learning-starts", "100", "--global-batch-size", "32", "--hidden-sizes", "16"),
    *("--checkpoint-period", "300", "--log-period", "300", "--evaluation-period", "0", "--target-update-period", "50"),
    *("--final-evaluation-episodes", "2", "--replay-capacity", "400"),
)
UPDATES = 500


def _train(*arguments: str | Path) -> None:
    run_well("mpirun", 2, *arguments, program=PROGRAMS / "seam_train.py")


def test_foreign_parts_train_on_two_ranks_and_resume_bit_for_bit(tmp_path: Path) -> None:
    """Fifty-one outputs per action and their own loss, two outputs of the network, priorities: 500 updates."""
    total = str(100 + UPDATES)
    _train(*FOREIGN, *RUN, "--total-env-steps", total, "--runs-dir", tmp_path, "--name", "whole")
    _train(*FOREIGN, *RUN, "--total-env-steps", "300", "--runs-dir", tmp_path, "--name", "parts")
    _train("--resume", tmp_path / "CartPole-v1" / "parts", "--total-env-steps", total)
    whole, parts = (newest_checkpoint(tmp_path / "CartPole-v1" / name) for name in ("whole", "parts"))
    assert (whole / "learner.safetensors").read_bytes() == (parts / "learner.safetensors").read_bytes()
    ours, theirs = (json.loads((folder / "state.json").read_text())["ranks"] for folder in (whole, parts))
    for one, other in zip(ours, theirs, strict=True):
        assert one["replay_state"] == other["replay_state"]
        assert one["generators"] == other["generators"]
        assert len(one["replay_state"]["dict"]["priorities"]["array"][2]) > 100
    last = read_metrics(tmp_path / "CartPole-v1" / "parts", "training")[-1]
    assert last["learner_steps"] == UPDATES
    assert last["loss"] > 0
