"""A rank that is stopped: the others wait and go on, or end the job with a message that names it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from forms import FULL, only_in_full
from launching import Launch, launched, read_metrics

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

LONG = (
    *("--total-env-steps", "100000000", "--learning-starts", "200", "--evaluation-period", "0", "--log-period", "200"),
    *("--checkpoint-period", "1000", "--name", "long"),
)
KIND = "rank stopped by SIGSTOP"
TRANSPORTS = {
    "mpirun": ("shared-memory", "tcp", "mpi", "horovod"),
    "horovodrun --mpi": ("shared-memory", "mpi", "horovod"),
    "horovodrun --gloo": ("shared-memory", "tcp", "horovod"),
}
COMBINATIONS = [(how, transport) for how, transports in TRANSPORTS.items() for transport in transports]


def _cases(short_form: tuple[tuple[str, str], ...]) -> list[Any]:
    """Returns all combinations, of which the short form takes these."""
    return [pytest.param(*case, marks=() if case in short_form else only_in_full) for case in COMBINATIONS]


def _steps(run_directory: Path) -> int:
    records = read_metrics(run_directory, "training")
    return records[-1]["env_steps"] if records else 0


def _wait_for_steps(job: Launch, run_directory: Path, more: int) -> None:
    metrics = run_directory / "metrics.jsonl"
    job.wait_until(metrics.exists)
    goal = _steps(run_directory) + more
    job.wait_until(lambda: _steps(run_directory) >= goal)


@pytest.mark.parametrize(
    ("how", "transport"),
    _cases((*(("mpirun", carrier) for carrier in ("mpi", "shared-memory")), ("horovodrun --gloo", "tcp"))),
)
def test_a_rank_stopped_beyond_the_limit_ends_the_job_and_is_named(
    how: str, transport: str, tmp_path: Path, injected: Any
) -> None:
    run_directory = tmp_path / "CartPole-v1" / "long"
    options = (*LONG, "--runs-dir", str(tmp_path), "--transport", transport, "--stall-timeout-seconds", "6")
    with launched(how, 2, *options) as job:
        _wait_for_steps(job, run_directory, 1200)
        injected(KIND)
        os.kill(job.rank_pid(1), signal.SIGSTOP)
        stopped = time.monotonic()
        outcome = job.finish(90.0)
        took = time.monotonic() - stopped
    assert 5.0 < took < 30.0
    assert outcome.code not in (0, 2, 75), outcome.output
    assert "rank 0 got no further for 6 s" in outcome.output
    assert "no sign of life from rank(s) 1, lost or stopped" in outcome.output
    assert list(run_directory.glob("checkpoints/*/manifest.json"))


@only_in_full
@pytest.mark.parametrize("rank", [0, 2])
def test_of_three_ranks_the_stopped_one_is_named(rank: int, tmp_path: Path, injected: Any) -> None:
    run_directory = tmp_path / "CartPole-v1" / "long"
    options = (*LONG, "--runs-dir", str(tmp_path), "--stall-timeout-seconds", "6")
    with launched("mpirun", 3, *options) as job:
        _wait_for_steps(job, run_directory, 600)
        injected(KIND)
        os.kill(job.rank_pid(rank), signal.SIGSTOP)
        outcome = job.finish(90.0)
    assert f"no sign of life from rank(s) {rank}, lost or stopped" in outcome.output


@pytest.mark.parametrize(("how", "transport"), _cases((("mpirun", "shared-memory"),)))
def test_a_rank_stopped_for_less_than_the_limit_is_waited_for(
    how: str, transport: str, tmp_path: Path, injected: Any
) -> None:
    """20 seconds with the default limit; in the short form 5 of 8, under one launcher."""
    run_directory = tmp_path / "CartPole-v1" / "long"
    limit = () if FULL else ("--stall-timeout-seconds", "8")
    options = (*LONG, "--runs-dir", str(tmp_path), "--transport", transport, *limit)
    with launched(how, 2, *options) as job:
        _wait_for_steps(job, run_directory, 1200)
        stopped = job.rank_pid(1)
        injected(KIND)
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(2.0)
        stood = _steps(run_directory)
        time.sleep(18.0 if FULL else 3.0)
        assert _steps(run_directory) == stood
        os.kill(stopped, signal.SIGCONT)
        _wait_for_steps(job, run_directory, 1000)
        assert "got no further" not in job.output
        # horovodrun leaves the ranks to themselves; a signal to a rank is the same under all.
        os.kill(job.rank_pid(0), signal.SIGUSR1)
        outcome = job.finish(60.0)
    assert "stopped and saved at env step" in outcome.output
    assert not (run_directory / "waiting").exists()
