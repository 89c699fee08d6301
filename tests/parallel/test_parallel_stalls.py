"""A rank that is stopped: the others wait and go on, or end the job with a message that names it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from forms import only_in_full
from launching import GENERAL, LAUNCHERS, LEARNERS, PROGRAMS, Launch, launched, read_metrics
from persistent_ranks import PersistentRanks

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

LOG_PERIOD = 200
LONG = (
    *("--total-env-steps", "100000000", "--learning-starts", "200", "--evaluation-period", "0"),
    *("--log-period", str(LOG_PERIOD), "--checkpoint-period", "1000", "--train-period", "4", "--name", "long"),
)
KIND = "rank stopped by SIGSTOP"
NO_SUCH_PAIR = "horovodrun --gloo", "native"
"""The native learner needs ranks under MPI."""
COMBINATIONS = [(how, learner) for how in LAUNCHERS for learner in LEARNERS if (how, learner) != NO_SUCH_PAIR]


def _cases(*short_form: tuple[str, str]) -> list[Any]:
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


@pytest.mark.parametrize(("how", "learner"), _cases(("mpirun", "native"), ("horovodrun --gloo", "tensorflow")))
def test_a_rank_stopped_beyond_the_limit_ends_the_job_and_is_named(
    how: str, learner: str, tmp_path: Path, injected: Any
) -> None:
    run_directory = tmp_path / "CartPole-v1" / "long"
    options = (*LONG, *LEARNERS[learner], "--runs-dir", str(tmp_path), "--stall-timeout-seconds", "6")
    with launched(how, 2, *options) as job:
        _wait_for_steps(job, run_directory, 1200)
        injected(KIND)
        os.kill(job.rank_pid(1), signal.SIGSTOP)
        outcome = job.finish()
    assert outcome.code not in (0, 2, 75), outcome.output
    assert "rank 0 got no further for 6 s" in outcome.output
    assert "no sign of life from rank(s) 1, lost or stopped" in outcome.output
    assert list(run_directory.glob("checkpoints/*/manifest.json"))


@only_in_full
@pytest.mark.parametrize("rank", [0, 2])
def test_of_three_ranks_the_stopped_one_is_named(rank: int, tmp_path: Path, injected: Any) -> None:
    run_directory = tmp_path / "CartPole-v1" / "long"
    options = (*LONG, *GENERAL, "--runs-dir", str(tmp_path), "--stall-timeout-seconds", "6")
    with launched("mpirun", 3, *options) as job:
        _wait_for_steps(job, run_directory, 600)
        injected(KIND)
        os.kill(job.rank_pid(rank), signal.SIGSTOP)
        outcome = job.finish()
    assert f"no sign of life from rank(s) {rank}, lost or stopped" in outcome.output


@pytest.mark.parametrize(("how", "learner"), _cases(("mpirun", "tensorflow")))
def test_a_rank_stopped_for_less_than_the_limit_is_waited_for(
    how: str, learner: str, tmp_path: Path, injected: Any
) -> None:
    """Five seconds with the default limit of a minute and more; the others neither go on nor give up."""
    run_directory = tmp_path / "CartPole-v1" / "long"
    with launched(how, 2, *LONG, *LEARNERS[learner], "--runs-dir", tmp_path) as job:
        _wait_for_steps(job, run_directory, 1200)
        stopped = job.rank_pid(1)
        injected(KIND)
        os.kill(stopped, signal.SIGSTOP)
        stood = _steps(run_directory)
        time.sleep(5.0)
        assert _steps(run_directory) <= stood + LOG_PERIOD, "what was under way, and no more"
        os.kill(stopped, signal.SIGCONT)
        _wait_for_steps(job, run_directory, 1000)
        assert "got no further" not in job.output
        # horovodrun leaves the ranks to themselves; a signal to a rank is the same under all.
        os.kill(job.rank_pid(0), signal.SIGUSR1)
        outcome = job.finish()
    assert "stopped and saved at env step" in outcome.output
    assert not (run_directory / "waiting").exists()


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=only_in_full), 2])
def test_slow_learner_steps_are_no_stall(ranks: int, persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    """Eight of half a second in an iteration, under a limit of two seconds: a rank alone has none at all."""
    short = (
        *("--total-env-steps", "200", "--learning-starts", "176", "--num-envs", "8", "--evaluation-period", "0"),
        *("--final-evaluation-episodes", "1", "--stall-timeout-seconds", "2", "--name", "slow", *GENERAL),
    )
    program = PROGRAMS / "slow_learner.py"
    persistent_ranks.run_well(ranks, "0.5", *short, "--runs-dir", tmp_path, program=program)
    assert read_metrics(tmp_path / "CartPole-v1" / "slow", "training")[-1]["learner_steps"] == 24


SLOW = (
    *("--num-envs", "2", "--learning-starts", "32", "--total-env-steps", "64", "--evaluation-period", "0"),
    *("--final-evaluation-episodes", "1", "--stall-timeout-seconds", "2", *GENERAL),
)


def test_a_lone_rank_waits_for_its_environments(tmp_path: Path, persistent_ranks: PersistentRanks) -> None:
    """Each reset takes longer than the limit, which is for ranks that wait for one another."""
    slow = ("--env", "hostile_envs:SlowReset-v0", "--env-kwargs", '{"rank": 0, "seconds": 3}')
    outcome = persistent_ranks.run_well(1, *SLOW, *slow, "--runs-dir", tmp_path)
    assert "got no further" not in outcome.output


@pytest.mark.parametrize(
    ("env", "first", "call"),
    [
        ("SlowReset-v0", 0, "reset() of a first environment"),
        ("SlowReset-v0", 1, "reset() of environment 1"),
        ("SlowInit-v0", 0, "the constructor of a first environment"),
        pytest.param("SlowInit-v0", 2, "the constructor of environment 1", marks=only_in_full),
    ],
)
def test_the_message_names_the_environment_that_a_rank_waits_for(
    env: str, first: int, call: str, tmp_path: Path, injected: Any
) -> None:
    """Also of the one in which action masks are looked for, before there is a run directory."""
    slow = ("--env", f"hostile_envs:{env}", "--env-kwargs", f'{{"rank": 1, "seconds": 600, "first": {first}}}')
    with launched("mpirun", 2, *SLOW, *slow, "--runs-dir", tmp_path) as job:
        injected("environment: slow")
        outcome = job.finish()
    assert outcome.code == 1
    assert f"starting ({call} is running)" in outcome.output
    assert "--stall-timeout-seconds" in outcome.output
