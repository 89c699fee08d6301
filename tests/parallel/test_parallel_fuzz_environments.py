"""Whatever an environment does on one rank: all ranks end soon, with exit code 0 or 2, a message and all checkpoints.

HVD_DQN_FUZZ_SECONDS is the time of the test; `make test-faults` gives a minute, and new examples each time.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from launching import Outcome
from misbehaving_envs import ANSWERS, ANYWHERE, CALLS
from persistent_ranks import PersistentRanks

from hvd_dqn.checkpoint.store import CheckpointStore

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

SECONDS = float(os.environ.get("HVD_DQN_FUZZ_SECONDS", "1"))
PROFILE = settings(
    max_examples=3,
    deadline=None,
    database=None,
    derandomize=False,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SECONDS_PER_RUN = 60.0
QUICK = (
    *("--total-env-steps", "320", "--learning-starts", "32", "--num-envs", "4", "--global-batch-size", "16"),
    *("--evaluation-period", "160", "--evaluation-episodes", "4", "--final-evaluation-episodes", "4"),
    *("--checkpoint-period", "80", "--log-period", "80", "--name", "run", "--learner", "native"),
)


@st.composite
def misbehaviours(draw: st.DrawFn) -> dict[str, Any]:
    """Draws the environment's arguments."""
    call = draw(st.sampled_from(CALLS))
    what = draw(st.sampled_from(sorted([*ANYWHERE, *ANSWERS.get(call, ())])))
    at = draw(st.integers(0, {"step": 60, "reset": 8}.get(call, 4)))
    return {"rank": draw(st.integers(0, 1)), "call": call, "at": at, "what": what, "saves": draw(st.booleans())}


def _check(outcome: Outcome, checkpoints: Path) -> None:
    assert outcome.code in (0, 2), outcome.output
    assert "Traceback" not in outcome.output, outcome.output
    assert outcome.code == 0 or outcome.output.count("train.py: ") == 1, outcome.output
    assert outcome.code == 0 or "environment" in outcome.output or "cannot make" in outcome.output, outcome.output
    store = CheckpointStore(checkpoints, keep=3)
    if not store.empty:
        _, passed_over = store.newest_good(False)
        assert passed_over == []
    assert outcome.code == 2 or not store.empty


def test_no_misbehaviour_of_an_environment_costs_more_than_the_run(
    persistent_ranks: PersistentRanks, injected: Any
) -> None:
    """A run, and a resume of it."""

    def example(data: st.DataObject) -> None:
        arguments = data.draw(misbehaviours())
        form = data.draw(st.sampled_from(["sync", "async"]))
        boundary = data.draw(st.sampled_from(["keep", "reset"]))
        injected(f"environment: {arguments['call']}")
        with tempfile.TemporaryDirectory() as folder:
            command = [*QUICK, "--runs-dir", folder, "--vectorization", form, "--checkpoint-boundary", boundary]
            command += ["--env", "misbehaving_envs:Misbehaves-v0", "--env-kwargs", json.dumps(arguments)]
            checkpoints = Path(folder) / "misbehaving_envs-Misbehaves-v0" / "run" / "checkpoints"
            for total in ("320", "480"):
                auto = ("--resume", "auto", "--total-env-steps", total)
                outcome = persistent_ranks.run(2, *command, *auto, seconds=SECONDS_PER_RUN)
                hypothesis.note(f"{arguments} {form} {boundary} {total}")
                _check(outcome, checkpoints)

    deadline, rounds = time.monotonic() + SECONDS, 0
    while rounds == 0 or time.monotonic() < deadline:
        test = PROFILE(hypothesis.given(st.data())(example))
        hypothesis.seed(rounds if "HVD_DQN_FUZZ_SECONDS" not in os.environ else time.time_ns())(test)()
        rounds += 1
