"""`launch/local.sh --restarts N` goes on where a rank dies, and its exit codes mean what they say."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forms import only_in_full
from launching import GENERAL, MARK, ROOT, Launch, launched, read_metrics, run_well
from persistent_ranks import PersistentRanks

from hvd_dqn.checkpoint.store import CheckpointStore

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

RUN = (
    *("--total-env-steps", "12000", "--learning-starts", "200", "--evaluation-period", "0", "--log-period", "400"),
    *("--checkpoint-period", "2000", "--final-evaluation-episodes", "2", "--name", "run", "--num-envs", "8"),
    *("--train-period", "4"),
)
KILLED = "rank killed by SIGKILL"


@contextlib.contextmanager
def local(*arguments: str | Path) -> Iterator[Launch]:
    """Runs launch/local.sh with two ranks for the time of a with-block."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HOROVOD_", "OMPI_", "PMIX_"))}
    launch = Launch([str(ROOT / "launch" / "local.sh"), "-np", "2", "-x", MARK, *map(str, arguments)], environ)
    try:
        yield launch
    finally:
        launch.end()


def _kill(job: Launch, rank: int) -> None:
    os.kill(job.rank_pid(rank), signal.SIGKILL)


def test_a_rank_killed_again_and_again_is_started_again_from_the_last_checkpoint(tmp_path: Path, injected: Any) -> None:
    """First before there is any checkpoint, then after some."""
    run_directory = tmp_path / "CartPole-v1" / "run"
    with local("--restarts", "2", "--", *RUN, *GENERAL, "--runs-dir", tmp_path) as job:
        job.wait_until((run_directory / "metrics.jsonl").exists)
        job.wait_until(lambda: bool(read_metrics(run_directory)))
        injected(KILLED, 2)
        _kill(job, 1)
        job.wait_for(f"restart 1 of 2 from {run_directory}")
        job.wait_for("has no checkpoint yet: the run starts from the beginning")
        job.wait_until(lambda: any(run_directory.glob(f"checkpoints/{4000:012d}/manifest.json")))
        _kill(job, 0)
        job.wait_for(f"restart 2 of 2 from {run_directory}")
        outcome = job.finish()
    assert outcome.code == 0, outcome.output
    assert "resumed from the checkpoint at env step" in outcome.output
    checkpoint, passed_over = CheckpointStore(run_directory / "checkpoints", keep=3).newest_good()
    assert (checkpoint.env_steps, passed_over) == (12_000, [])
    steps = [record["env_steps"] for record in read_metrics(run_directory, "training")]
    assert steps == list(range(400, 12_001, 400))


def test_a_job_that_dies_in_its_final_evaluation_has_only_that_left(
    persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    run_directory = tmp_path / "CartPole-v1" / "run"
    short = (*RUN, *GENERAL, "--total-env-steps", "800", "--runs-dir", tmp_path)
    with launched("python", 1, *short, "--final-evaluation-episodes", "1000000") as job:
        job.wait_until((run_directory / "checkpoints" / f"{800:012d}" / "manifest.json").exists)
        injected(KILLED)
        os.kill(job.process.pid, signal.SIGKILL)
        job.finish()
    again = ("--resume", run_directory, "--final-evaluation-episodes", "2")
    assert "Greedy evaluation of the" in persistent_ranks.run_well(1, *again).output
    over = persistent_ranks.run(1, *again)
    assert over.code == 2
    assert "raise --total-env-steps to continue" in over.output


def test_a_job_stopped_in_its_final_evaluation_asks_to_be_queued_again(tmp_path: Path, injected: Any) -> None:
    """Exit code 0 would tell a scheduler that nothing is left to do."""
    run_directory = tmp_path / "CartPole-v1" / "run"
    command = (*RUN, "--total-env-steps", "800", "--resume", "auto", "--runs-dir", tmp_path)
    with launched("mpirun", 2, *command, "--final-evaluation-episodes", "1000000") as job:
        job.wait_until((run_directory / "checkpoints" / f"{800:012d}" / "manifest.json").exists, 120.0)
        time.sleep(1.0)
        injected("request to stop (to a rank)")
        os.kill(job.rank_pid(1), signal.SIGTERM)
        outcome = job.finish()
    assert outcome.code == 75, outcome.output
    assert "stopped during the final evaluation" in outcome.output
    assert "final_evaluation" not in {record["kind"] for record in read_metrics(run_directory)}
    run_well("mpirun", 2, *command)
    assert read_metrics(run_directory)[-1]["kind"] == "final_evaluation"


@only_in_full
def test_a_job_that_dies_before_it_has_begun_starts_again_under_the_same_name(tmp_path: Path, injected: Any) -> None:
    """Killed as soon as its directory is there, before config.json is."""
    run_directory = tmp_path / "CartPole-v1" / "run"
    with local("--restarts", "1", "--", *RUN, "--total-env-steps", "800", "--runs-dir", tmp_path) as job:
        job.wait_until(run_directory.exists)
        injected(KILLED)
        with contextlib.suppress(ProcessLookupError):
            _kill(job, 1)
        job.wait_for("restart 1 of 1")
        outcome = job.finish()
    assert outcome.code == 0, outcome.output


@only_in_full
@pytest.mark.parametrize("controller", ["--mpi", "--gloo"])
def test_when_the_restarts_are_used_up_the_exit_code_is_that_of_a_lost_rank(
    controller: str, tmp_path: Path, injected: Any
) -> None:
    run_directory = tmp_path / "CartPole-v1" / "run"
    with local(controller, "--", *RUN, "--total-env-steps", "100000000", "--runs-dir", tmp_path) as job:
        job.wait_until(lambda: any(run_directory.glob("checkpoints/*/manifest.json")))
        injected(KILLED)
        _kill(job, 1)
        outcome = job.finish()
    assert outcome.code not in (0, 2, 75), outcome.output
    assert "; restart " not in outcome.output


@pytest.mark.parametrize("controller", [pytest.param("--mpi", marks=only_in_full), "--gloo"])
def test_a_request_to_stop_is_no_death(controller: str, tmp_path: Path, injected: Any) -> None:
    """Exit code 75 under Gloo, too, whose launcher knows only 1; the script and a rank are asked alike."""
    run_directory = tmp_path / "CartPole-v1" / "run"
    options = (controller, "--restarts", "5", "--", *RUN, "--total-env-steps", "100000000", "--runs-dir", tmp_path)
    with local(*options) as job:
        job.wait_until(lambda: any(run_directory.glob("checkpoints/*/manifest.json")))
        injected("request to stop (to launch/local.sh)" if controller == "--mpi" else "request to stop (to a rank)")
        os.kill(job.process.pid if controller == "--mpi" else job.rank_pid(1), signal.SIGTERM)
        outcome = job.finish()
    assert outcome.code == 75, outcome.output
    assert f"resume with: --resume {run_directory}" in outcome.output
    assert " restart " not in outcome.output


@pytest.mark.parametrize("controller", ["--mpi", pytest.param("--gloo", marks=only_in_full)])
def test_a_mistake_is_not_tried_again(controller: str, tmp_path: Path) -> None:
    for arguments in (("--lerning-rate", "1"), ("--env", "CartPol-v1", "--runs-dir", tmp_path)):
        with local(controller, "--restarts", "3", "--", *arguments) as job:
            outcome = job.finish()
        assert outcome.code == 2, outcome.output
        assert " restart " not in outcome.output


def test_the_script_refuses_what_is_no_number(tmp_path: Path) -> None:
    for value in ("-1", "many", "1.5"):
        with local("--restarts", value) as job:
            outcome = job.finish()
        assert outcome.code == 2
        assert f"--restarts {value}: must be a number" in outcome.output
