"""Action masks on real ranks: no invalid action is taken, and a wrong mask ends the job everywhere, by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from launching import ROOT
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

ENV = f"{ROOT / 'tests' / 'unit' / 'masked_environments.py'}:Gated-v0"
SHORT = (
    *("--env", ENV, "--total-env-steps", "160", "--learning-starts", "40", "--num-envs", "4", "--hidden-sizes", "8"),
    *("--global-batch-size", "8", "--evaluation-period", "0", "--final-evaluation-episodes", "4"),
    *("--vectorization", "sync", "--epsilon-end", "0.5", "--progress", "plain"),
)


def _arguments(tmp_path: Path, **env: Any) -> tuple[str | Path, ...]:
    return (*SHORT, "--env-kwargs", json.dumps(env), "--runs-dir", tmp_path)


def test_two_ranks_take_valid_actions_alone(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    """The environment raises at any other."""
    outcome = persistent_ranks.run_well(2, *_arguments(tmp_path, strict=True, form="dict"))
    assert "from the observations of" in outcome.output


def test_a_mask_of_zeros_ends_the_job_on_all_ranks(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    outcome = persistent_ranks.run(2, *_arguments(tmp_path, fault="zeros", fault_at=15))
    assert outcome.code == 2, outcome.output
    assert re.search("environment [0-3] returned an action mask of zeros at its step 15", outcome.output), (
        outcome.output
    )
