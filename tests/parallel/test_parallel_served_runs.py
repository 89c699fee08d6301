"""Whole runs with parameter servers: results, resumes, signals, and ranks that are killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from forms import only_in_full
from launching import GENERAL, PROGRAMS, TRAIN, checkpoints, launched, newest_checkpoint, read_metrics, run, surviving
from persistent_ranks import PersistentRanks

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

SHORT = (
    *("--total-env-steps", "1000", "--learning-starts", "200", "--log-period", "200", "--seed", "4"),
    *("--evaluation-period", "500", "--evaluation-episodes", "4", "--final-evaluation-episodes", "4"),
    *("--train-period", "2", "--target-update-period", "50", "--name", "short"),
)
LONG = (
    *("--total-env-steps", "100000000", "--learning-starts", "200", "--log-period", "200", "--train-period", "4"),
    *(
        "--evaluation-period",
        "1000",
        "--evaluation-episodes",
        "4",
        "--final-evaluation-episodes",
        "4",
        "--name",
        "long",
    ),
)
SYNCHRONOUS, ASYNCHRONOUS = ("--strategy", "ps-sync"), ("--strategy", "ps-async")
MOST_SECONDS = 30.0
"""In which a job ends that has lost a parameter server."""


def weights(run_directory: Path) -> dict[str, str]:
    """Returns the checksum of each file of weights and optimizer state, by checkpoint and name."""
    files = sorted(run_directory.glob("checkpoints/*/*.safetensors"))
    return {"/".join(file.parts[-2:]): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def counters(run_directory: Path) -> dict[str, int]:
    """Returns the newest checkpoint's counters."""
    found: dict[str, int] = json.loads((newest_checkpoint(run_directory) / "state.json").read_text())["counters"]
    return found


@pytest.fixture(scope="module")
def summed(persistent_ranks: PersistentRanks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the run directory of the short run on two ranks by allreduce."""
    folder = tmp_path_factory.mktemp("allreduce")
    persistent_ranks.run_well(2, *SHORT, *GENERAL, "--runs-dir", folder)
    return folder / "CartPole-v1" / "short"


@pytest.mark.parametrize("strategy", [SYNCHRONOUS, (*ASYNCHRONOUS, "--max-staleness", "0")])
def test_a_synchronous_run_is_bitwise_that_of_an_allreduce(
    strategy: tuple[str, ...], summed: Path, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Two workers' gradients have one sum only; a staleness of 0 is the same strategy."""
    outcome = persistent_ranks.run_well(3, *SHORT, *strategy, "--runs-dir", tmp_path)
    assert "2, controller MPI" in outcome.output
    assert "parameter server, 1 rank(s) more that serve, synchronous" in outcome.output
    run_directory = tmp_path / "CartPole-v1" / "short"
    assert len(weights(summed)) == 4
    assert weights(run_directory) == weights(summed)
    assert counters(run_directory) == counters(summed)
    # The resume on the same number of workers is that of an allreduce, too.
    copies = [shutil.copytree(run_directory, tmp_path / "served"), shutil.copytree(summed, tmp_path / "summed")]
    more = ("--total-env-steps", "1400")
    persistent_ranks.run_well(3, "--resume", copies[0], *more)
    persistent_ranks.run_well(2, "--resume", copies[1], *more, *GENERAL)
    assert len(weights(copies[0])) > 4
    assert weights(copies[0]) == weights(copies[1])


@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        pytest.param(3, (), marks=only_in_full),
        (4, ("--servers", "2", "--max-staleness", "2", "--staleness-lr", "inverse", "--replay", "prioritized")),
    ],
)
def test_an_asynchronous_run_learns_at_the_pace_of_its_env_steps_and_resumes(
    ranks: int, options: tuple[str, ...], persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    persistent_ranks.run_well(ranks, *SHORT, *ASYNCHRONOUS, *options, "--runs-dir", tmp_path)
    run_directory = tmp_path / "CartPole-v1" / "short"
    done = counters(run_directory)
    assert 1000 <= done["env_steps"] < 1100
    assert done["learner_steps"] == pytest.approx(400, abs=25)
    assert done["target_updates"] == done["learner_steps"] // 50
    assert done["episodes"] > 10
    training = read_metrics(run_directory, "training")
    assert all(0 <= record["staleness_mean"] <= record["staleness_max"] for record in training)
    assert training[-1]["staleness_max"] > 0
    assert np.isfinite([record["loss"] for record in training[1:]]).all()
    assert len(read_metrics(run_directory, "evaluation")) >= 2
    for number, (size, strategy) in enumerate([(ranks, ()), (2, ("--strategy", "allreduce"))]):
        copy = shutil.copytree(run_directory, tmp_path / f"copy {number}")
        reset = ("--servers", "1", "--max-staleness", "-1", "--staleness-lr", "none") if strategy else ()
        persistent_ranks.run_well(size, "--resume", copy, "--total-env-steps", "1600", *strategy, *reset)
        after = counters(copy)
        assert 1600 <= after["env_steps"] < 1700
        assert after["learner_steps"] - done["learner_steps"] == pytest.approx(300, abs=25)


@pytest.mark.parametrize("strategy", [pytest.param(SYNCHRONOUS, marks=only_in_full), ASYNCHRONOUS])
def test_a_signal_to_a_server_saves_the_job_and_a_resume_continues_it(
    strategy: tuple[str, ...], persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    run_directory = tmp_path / "CartPole-v1" / "long"
    with launched("mpirun", 3, *LONG, *strategy, "--runs-dir", tmp_path) as job:
        job.wait_for("evaluation at env step ")
        injected("request to stop (to a parameter server)")
        os.kill(job.rank_pid(2), signal.SIGTERM)
        outcome = job.finish(60.0)
    assert outcome.code == 75, outcome.output
    assert outcome.output.count("stopped and saved at env step") == 1
    assert "Traceback" not in outcome.output
    done = counters(run_directory)
    end = str(done["env_steps"] + 400)
    persistent_ranks.run_well(3, "--resume", run_directory, "--total-env-steps", end, "--evaluation-period", "0")
    assert counters(run_directory)["learner_steps"] > done["learner_steps"]


@pytest.mark.parametrize("victim", [1, 2])
def test_a_killed_worker_does_not_stop_asynchronous_others(victim: int, tmp_path: Path, injected: Any) -> None:
    """Three workers and a server; the run ends well on two workers, with a warning and a record."""
    run_directory = tmp_path / "CartPole-v1" / "long"
    options = (*LONG, *ASYNCHRONOUS, "--max-staleness", "8", "--total-env-steps", "6000", "--runs-dir", tmp_path)
    with surviving(4, TRAIN, *options) as job:
        job.wait_for("evaluation at env step ")
        injected("killed asynchronous worker")
        os.kill(job.rank_pid(victim), signal.SIGKILL)
        outcome = job.finish(200.0)
    assert outcome.code == 0, outcome.output
    assert f"worker {victim} is lost; the others continue" in outcome.output
    assert "1 worker(s) lost; 2 continue" in outcome.output
    assert "Greedy evaluation of the best checkpoint" in outcome.output
    assert counters(run_directory)["env_steps"] >= 6000
    (lost,) = read_metrics(run_directory, "ranks")
    assert (lost["ranks"], lost["left"]) == (2, 1)
    evaluations = read_metrics(run_directory, "evaluation")
    assert [record["episodes"] for record in evaluations] == [4] * len(evaluations)
    assert len(evaluations) >= 4


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("hvd_dqn.replay.ring:RingReplay.__init__", id="start"),
        pytest.param("hvd_dqn.checkpoint.segments:SegmentWriter.write", id="save"),
        pytest.param("hvd_dqn.envs.greedy:GreedyEvaluation.begin", id="final evaluation"),
    ],
)
def test_a_worker_may_die_at_any_time(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, injected: Any
) -> None:
    """Nobody waits for a part of a checkpoint that never comes, and the status file has the exit code."""
    status, run_directory = tmp_path / "status", tmp_path / "CartPole-v1" / "short"
    monkeypatch.setenv("HVD_DQN_STATUS_FILE", str(status))
    options = (*SHORT, *ASYNCHRONOUS, "--evaluation-period", "0", "--checkpoint-period", "400", "--runs-dir", tmp_path)
    injected("killed asynchronous worker")
    with surviving(3, PROGRAMS / "dying_train.py", "1", where, *options) as job:
        outcome = job.finish(80.0)
    assert outcome.code == 0, outcome.output
    assert "worker 1 is lost; the others continue" in outcome.output
    assert "Greedy evaluation of the" in outcome.output
    assert status.read_text().splitlines()[-1] == "exit_code=0", outcome.output
    assert counters(run_directory)["env_steps"] >= 1000


def test_a_worker_that_dies_while_a_run_resumes_leaves_the_replay_to_the_others(
    persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """Three workers saved; two get all transitions, so that they learn at once, and begin with all environments."""
    persistent_ranks.run_well(4, *SHORT, *ASYNCHRONOUS, "--runs-dir", tmp_path)
    run_directory = tmp_path / "CartPole-v1" / "short"
    before = counters(run_directory)
    injected("killed asynchronous worker")
    options = ("--resume", run_directory, "--total-env-steps", "1400")
    with surviving(4, PROGRAMS / "dying_train.py", "1", "hvd_dqn.replay.ring:RingReplay.__init__", *options) as job:
        outcome = job.finish(80.0)
    assert outcome.code == 0, outcome.output
    assert "2, controller MPI" in outcome.output
    after = counters(run_directory)
    assert after["env_steps"] >= 1400
    assert after["learner_steps"] - before["learner_steps"] == pytest.approx(200, abs=25)


@pytest.mark.parametrize(
    ("strategy", "victim"), [pytest.param(SYNCHRONOUS, 2, marks=only_in_full), (ASYNCHRONOUS, 2), (ASYNCHRONOUS, 0)]
)
def test_a_killed_server_and_a_killed_worker_0_end_the_job_soon(
    strategy: tuple[str, ...], victim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, injected: Any
) -> None:
    """Although mpirun lets all others live; its own exit code is 0 then, and the status file has the job's."""
    run_directory, status = tmp_path / "CartPole-v1" / "long", tmp_path / "status"
    monkeypatch.setenv("HVD_DQN_STATUS_FILE", str(status))
    with surviving(3, TRAIN, *LONG, *strategy, "--runs-dir", tmp_path) as job:
        job.wait_until(lambda: bool(checkpoints(run_directory)))
        injected("killed parameter server")
        killed = time.monotonic()
        os.kill(job.rank_pid(victim), signal.SIGKILL)
        outcome = job.finish(200.0)
        seconds = time.monotonic() - killed
    assert seconds < MOST_SECONDS
    assert f"rank {victim} has died: rank" in outcome.output
    assert "resume it with --resume RUN_DIR" in outcome.output
    assert "Traceback" not in outcome.output
    assert status.read_text().splitlines()[-1] == "exit_code=1"
    assert counters(run_directory)["learner_steps"] > 0


@pytest.mark.parametrize("strategy", [SYNCHRONOUS, ASYNCHRONOUS])
def test_gradients_that_are_not_finite_are_applied_on_no_server(
    strategy: tuple[str, ...], persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """Three of worker 1's are left out and counted; one more than is allowed ends the job on all."""
    options: tuple[str | Path, ...] = ("1", "7,100,101", *SHORT, *strategy, "--runs-dir", tmp_path, "--skip-nonfinite")
    injected("gradient that is not finite", 6)
    persistent_ranks.run_well(3, *options, "3", program=PROGRAMS / "poisoned_train.py")
    run_directory = tmp_path / "CartPole-v1" / "short"
    assert counters(run_directory)["skipped_updates"] == 3
    for file in run_directory.glob("checkpoints/*/*.safetensors"):
        assert all(np.isfinite(vector).all() for vector in safetensors.numpy.load_file(file).values())
    outcome = persistent_ranks.run(3, *options, "2", "--name", "ended", program=PROGRAMS / "poisoned_train.py")
    assert outcome.code == 2
    assert "is not finite on" in outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize(
    ("how", "ranks", "options", "says"),
    [
        ("mpirun", 2, ("--servers", "2"), "needs at least 3 ranks, and the job has 2"),
        ("horovodrun --gloo", 2, (), "start them by mpirun, srun or horovodrun --mpi"),
    ],
)
def test_ranks_that_cannot_serve_are_refused_on_all(
    how: str, ranks: int, options: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    outcome = run(how, ranks, *SHORT, *ASYNCHRONOUS, *options, "--runs-dir", tmp_path, seconds=60.0)
    assert outcome.code == (2 if how == "mpirun" else 1)  # Gloo's launcher makes a 1 of every code
    assert outcome.output.count(says) == 1
    assert not list(tmp_path.iterdir())
