"""Gradients that are not finite: --skip-nonfinite lets some pass on all ranks together, the next ends the job clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from forms import only_in_full
from launching import LEARNERS, PROGRAMS, newest_checkpoint, read_metrics
from persistent_ranks import PersistentRanks

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

KIND = "gradient that is not finite"
POISONED = PROGRAMS / "poisoned_train.py"
RUN = (
    *(
        "--total-env-steps",
        "1600",
        "--learning-starts",
        "160",
        "--evaluation-period",
        "0",
        "--checkpoint-period",
        "800",
    ),
    *("--log-period", "400", "--final-evaluation-episodes", "2", "--name", "poisoned"),
)
CASES = {**LEARNERS, "lagging": (*LEARNERS["native"], "--policy-lag", "1")}


def _counters(run_directory: Path) -> dict[str, Any]:
    return json.loads((newest_checkpoint(run_directory) / "state.json").read_text())["counters"]


def _assert_clean(run_directory: Path) -> None:
    manifests = list(run_directory.glob("checkpoints/*/manifest.json"))
    assert manifests
    for manifest in manifests:
        for file in ("model.safetensors", "learner.safetensors"):
            vectors = safetensors.numpy.load_file(manifest.parent / file)
            assert all(np.isfinite(vector).all() for vector in vectors.values())


@pytest.mark.parametrize(
    "case", ["tensorflow", *(pytest.param(name, marks=only_in_full) for name in CASES if name != "tensorflow")]
)
def test_tolerated_updates_are_skipped_counted_over_resumes_and_the_next_ends_the_job(
    case: str, persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """Three on rank 1, two of them in one call; two more after a resume, of which four in all are tolerated."""
    run_directory = tmp_path / "CartPole-v1" / "poisoned"
    options = (*RUN, *CASES[case], "--runs-dir", str(tmp_path), "--skip-nonfinite", "4")
    injected(KIND, 3)
    first = persistent_ranks.run(2, "1", "7,100,101", *options, program=POISONED)
    assert first.code == 0, first.output
    for number, step in enumerate((7, 100, 101), start=1):
        line = f"the gradient of learner step {step} is not finite on rank(s) 1: skipped on all ranks ({number} of 4"
        assert first.output.count(line) == 1, first.output
    counters = _counters(run_directory)
    assert counters["skipped_updates"] == 3
    lag = 16 if case == "lagging" else 0
    assert counters["learner_steps"] == 1600 - 160 - 3 - lag
    lines = read_metrics(run_directory, "training")
    assert [line["skipped_updates"] for line in lines] == [3, 3, 3, 3]
    assert [line["learner_steps"] for line in lines] == [line["env_steps"] - 163 - lag for line in lines]
    _assert_clean(run_directory)

    more = ("--resume", str(run_directory), "--total-env-steps", "3200")
    injected(KIND, 2)
    second = persistent_ranks.run(2, "1", "50,1000", *more, program=POISONED)
    assert second.code == 2, second.output
    done = counters["learner_steps"] + counters["skipped_updates"]
    assert f"the gradient of learner step {done + 50} is not finite on rank(s) 1: skipped" in second.output
    assert "(4 of 4 by --skip-nonfinite)" in second.output
    ending = f"the gradient of learner step {done + 1000} is not finite on rank(s) 1, after 4 that"
    assert second.output.count(ending) == 1, second.output
    assert "Traceback" not in second.output
    assert _counters(run_directory)["env_steps"] == 2400
    assert _counters(run_directory)["skipped_updates"] == 4
    _assert_clean(run_directory)


@pytest.mark.parametrize("case", LEARNERS)
def test_without_the_option_the_first_one_ends_the_job_on_all_ranks(
    case: str, persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    injected(KIND)
    outcome = persistent_ranks.run(2, "0", "1000", *RUN, *CASES[case], "--runs-dir", tmp_path, program=POISONED)
    assert outcome.code == 2, outcome.output
    assert outcome.output.count("the gradient of learner step 1000 is not finite on rank(s) 0; it was not") == 1
    assert "--skip-nonfinite N" in outcome.output
    run_directory = tmp_path / "CartPole-v1" / "poisoned"
    assert _counters(run_directory)["env_steps"] == 800
    _assert_clean(run_directory)
