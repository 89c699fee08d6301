"""A rank that dies or stops ends the job; a rank that is only slow does not."""

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


@pytest.mark.parametrize(("how", "transport"), [*((how, "auto") for how in LAUNCHERS), ("horovodrun --gloo", "tcp")])
def test_a_rank_that_dies_ends_the_job(how: str, transport: str, tmp_path: Path) -> None:
    """Rank 1 is killed in mid-training: within 30 s nothing of the job is left and its exit code says failure."""
    with launched(how, 2, *ENDLESS, *NO_EVALUATION, "--transport", transport, "--runs-dir", tmp_path) as job:
        job.wait_for(UNDER_WAY)
        os.kill(job.rank_pid(1), signal.SIGKILL)
        killed = time.monotonic()
        outcome = job.finish()
        assert time.monotonic() - killed < 30.0
    assert outcome.code not in (0, 2, 75), outcome.output


@pytest.mark.parametrize("how", ["mpirun", "horovodrun --gloo"])
def test_a_rank_that_stops_for_longer_than_the_stall_timeout_ends_the_job(how: str, tmp_path: Path) -> None:
    """Rank 1 is stopped for good: rank 0 says what it waits for and ends the job soon after the timeout."""
    arguments = (*ENDLESS, *NO_EVALUATION, "--stall-timeout-seconds", "6", "--runs-dir", tmp_path)
    with launched(how, 2, *arguments) as job:
        job.wait_for(UNDER_WAY)
        os.kill(job.rank_pid(1), signal.SIGSTOP)
        stopped = time.monotonic()
        outcome = job.finish()
        took = time.monotonic() - stopped
    assert outcome.code not in (0, 2, 75), outcome.output
    assert "hvd_dqn: rank 0 got no further for 6 s while learning" in outcome.output or (
        "Stalled" in outcome.output and how == "mpirun"
    ), outcome.output
    assert 5.0 < took < 30.0


@pytest.mark.parametrize("how", ["mpirun", "horovodrun --gloo"])
def test_a_rank_that_stops_for_less_than_the_stall_timeout_does_no_harm(how: str, tmp_path: Path) -> None:
    """Rank 1 sleeps for 3 s of an allowed 12: the run goes on to its end."""
    arguments = ("--total-env-steps", "3000", "--learning-starts", "200", "--log-period", "200", *NO_EVALUATION)
    with launched(how, 2, *arguments, "--stall-timeout-seconds", "12", "--runs-dir", tmp_path) as job:
        job.wait_for(UNDER_WAY)
        pid = job.rank_pid(1)
        os.kill(pid, signal.SIGSTOP)
        before = job.output
        time.sleep(3.0)
        assert job.process.poll() is None
        assert "Greedy evaluation" not in job.output, f"the run ended before the rank was stopped:\n{before}"
        os.kill(pid, signal.SIGCONT)
        outcome = job.finish()
    assert outcome.code == 0, outcome.output
    assert "Greedy evaluation" in outcome.output
    assert "got no further" not in outcome.output
