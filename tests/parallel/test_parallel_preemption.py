"""Whoever is told to stop, a rank, all of them or the launcher, the job saves, and a second signal does no harm."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from forms import only_in_full
from launching import GENERAL, Launch, checkpoints, launched, newest_checkpoint
from persistent_ranks import PersistentRanks

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

LONG = (
    *("--total-env-steps", "100000000", "--learning-starts", "200", "--evaluation-period", "0", "--log-period", "1000"),
    *("--checkpoint-period", "2000", "--train-period", "4", "--name", "long"),
)
TO_THE_LAUNCHER = {
    "mpirun": (signal.SIGUSR1, {75}),
    "horovodrun --gloo": (signal.SIGTERM, {0, 1}),
}
"""What its launcher passes on in time, and its exit codes then; Gloo's makes a 1 of every code, or loses them."""


def _begin(job: Launch, run_directory: Path) -> None:
    """Waits until there is a checkpoint."""
    job.wait_until(lambda: bool(checkpoints(run_directory)))


def _assert_saved(output: str, run_directory: Path) -> None:
    assert output.count("stopped and saved at env step") == 1, output
    assert f"resume with: --resume {run_directory}" in output
    assert "Traceback" not in output
    saved = output.split("stopped and saved at env step ")[1].split(";", maxsplit=1)[0].replace(",", "")
    assert int(newest_checkpoint(run_directory).name.split("-")[0]) == int(saved)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=only_in_full)])
def test_a_signal_to_all_ranks_saves_once(number: signal.Signals, tmp_path: Path, injected: Any) -> None:
    run_directory = tmp_path / "CartPole-v1" / "long"
    with launched("mpirun", 2, *LONG, *GENERAL, "--runs-dir", tmp_path) as job:
        _begin(job, run_directory)
        injected("request to stop (to all ranks)")
        for pid in [job.rank_pid(rank) for rank in (0, 1)]:
            os.kill(pid, number)
        outcome = job.finish()
    assert outcome.code == 75, outcome.output
    _assert_saved(outcome.output, run_directory)


@pytest.mark.parametrize("how", TO_THE_LAUNCHER)
def test_a_signal_to_the_launcher_saves(
    how: str, persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    run_directory = tmp_path / "CartPole-v1" / "long"
    number, codes = TO_THE_LAUNCHER[how]
    with launched(how, 2, *LONG, "--runs-dir", tmp_path) as job:
        _begin(job, run_directory)
        injected("request to stop (to the launcher)")
        os.kill(job.process.pid, number)
        outcome = job.finish()
    assert outcome.code in codes, outcome.output
    if how == "mpirun":
        _assert_saved(outcome.output, run_directory)
    else:  # it ends before it has passed on the ranks' last words
        assert json.loads((newest_checkpoint(run_directory) / "manifest.json").read_text())["score"] is None
        end = str(int(newest_checkpoint(run_directory).name) + 2000)
        persistent_ranks.run_well(2, "--resume", run_directory, "--total-env-steps", end)


@pytest.mark.parametrize("second", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=only_in_full)])
def test_a_second_signal_ends_the_job_at_once_and_leaves_the_last_checkpoint_good(
    second: signal.Signals, persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """To a rank that cannot save, since another is stuck; a notice that is repeated within 5 s is no such wish."""
    run_directory = tmp_path / "CartPole-v1" / "long"
    with launched("mpirun", 2, *LONG, *GENERAL, "--runs-dir", tmp_path) as job:
        _begin(job, run_directory)
        rank = job.rank_pid(0)
        injected("second signal")
        os.kill(job.rank_pid(1), signal.SIGSTOP)
        for notice in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
            os.kill(rank, notice)
        time.sleep(1.0)
        assert job.process.poll() is None
        if second == signal.SIGINT:
            os.kill(rank, second)
        while second != signal.SIGINT and job.process.poll() is None:  # once the notice is 5 s old
            os.kill(rank, second)
            time.sleep(1.0)
        outcome = job.finish()
    assert outcome.code == 128 + second, outcome.output
    assert "stopped and saved" not in outcome.output
    for path in checkpoints(run_directory):
        for name, facts in json.loads((path / "manifest.json").read_text())["files"].items():
            assert hashlib.sha256((path / name).read_bytes()).hexdigest() == facts["sha256"]
    end = str(int(newest_checkpoint(run_directory).name) + 2000)
    resumed = persistent_ranks.run_well(2, "--resume", run_directory, "--total-env-steps", end)
    assert "cannot be used" not in resumed.output
