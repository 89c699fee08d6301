"""A rank that dies ends the job."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from launching import LAUNCHERS, launched

pytestmark = pytest.mark.parallel

ENDLESS = ("--total-env-steps", "100000000", "--learning-starts", "200", "--log-period", "200")
NO_EVALUATION = ("--evaluation-period", "0", "--final-evaluation-episodes", "1")
UNDER_WAY = "env steps/s"
"""Printed with the first line of progress: the ranks are training."""


@pytest.mark.parametrize(("how", "learner"), [*((how, "tensorflow") for how in LAUNCHERS), ("mpirun", "native")])
def test_a_rank_that_dies_ends_the_job(how: str, learner: str, tmp_path: Path) -> None:
    """Rank 1 is killed in mid-training: within 30 s nothing of the job is left and its exit code says failure."""
    with launched(how, 2, *ENDLESS, *NO_EVALUATION, "--learner", learner, "--runs-dir", tmp_path) as job:
        job.wait_for(UNDER_WAY)
        os.kill(job.rank_pid(1), signal.SIGKILL)
        killed = time.monotonic()
        outcome = job.finish()
        assert time.monotonic() - killed < 30.0
    assert outcome.code not in (0, 2, 75), outcome.output
