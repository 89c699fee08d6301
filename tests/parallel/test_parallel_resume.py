"""A resume that is refused leaves the run as it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from launching import GENERAL, PROGRAMS, launched, newest_checkpoint, read_metrics, run, run_well
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

SHORT = (
    *("--total-env-steps", "1600", "--learning-starts", "200", "--evaluation-period", "0"),
    *("--final-evaluation-episodes", "2", "--name", "short", *GENERAL),
)
REFUSED = {
    "another network": (("--hidden-sizes", "32", "--total-env-steps", "3200"), "another configuration"),
    "another optimizer": (("--optimizer", "rmsprop", "--total-env-steps", "3200"), "another configuration"),
    "nothing left to do": (("--total-env-steps", "800"), "raise --total-env-steps"),
}


def test_a_refused_resume_changes_nothing(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    """The right command still works after the wrong ones."""
    persistent_ranks.run_well(1, *SHORT, "--runs-dir", tmp_path)
    run_directory = tmp_path / "CartPole-v1" / "short"
    kept = [run_directory / "config.json", run_directory / "metrics.jsonl"]
    before = [path.read_bytes() for path in kept]
    for name, (options, says) in REFUSED.items():
        outcome = persistent_ranks.run(1, "--resume", run_directory, *options)
        assert outcome.code == 2, outcome.output
        assert says in outcome.output, outcome.output
        assert [path.read_bytes() for path in kept] == before, name
    persistent_ranks.run_well(1, "--resume", run_directory, "--total-env-steps", "2400")
    assert kept[0].read_bytes() != before[0]


@pytest.mark.parametrize(
    ("ranks", "scaling", "first", "later"),
    [(1, "strong", 1, 4), pytest.param(1, "strong", 4, 1, marks=pytest.mark.slow), (2, "weak", 2, 2)],
)
def test_a_resume_with_another_train_period_learns_by_it_from_there_on(
    ranks: int, scaling: str, first: int, later: int, tmp_path: Path
) -> None:
    """Weak scaling multiplies the period by the number of ranks, so another number of ranks has another period."""
    begun = (*SHORT, "--num-envs", "8", "--scaling", scaling, "--train-period", str(first), "--runs-dir", tmp_path)
    run_well("python", 1, *begun)
    run_directory = tmp_path / "CartPole-v1" / "short"
    before = read_metrics(run_directory, "training")[-1]
    more = ("--train-period", str(later), "--total-env-steps", "3200")
    run_well("mpirun" if ranks > 1 else "python", ranks, "--resume", run_directory, *more)
    after = read_metrics(run_directory, "training")[-1]
    assert before["learner_steps"] == (1600 - 200) // first
    assert after["learner_steps"] - before["learner_steps"] == 1600 // (later * ranks)


@pytest.fixture(scope="module")
def two_ranks_run(persistent_ranks: PersistentRanks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the runs folder of a run of two ranks whose replay is in several segments of each."""
    folder = tmp_path_factory.mktemp("two")
    persistent_ranks.run_well(2, *SHORT, "--checkpoint-period", "400", "--runs-dir", folder)
    return folder


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_resume_reads_each_segment_once_on_all_ranks_together(
    two_ranks_run: Path, ranks: int, tmp_path: Path
) -> None:
    """On the same number of ranks each reads its own; on another they share the reading, and exchange transitions."""
    runs = shutil.copytree(two_ranks_run, tmp_path / "runs")
    run_directory = runs / "CartPole-v1" / "short"
    segments = json.loads((newest_checkpoint(run_directory) / "manifest.json").read_text())["segments"]
    assert len(segments) >= 6
    command = (tmp_path, runs, *SHORT, "--resume", "auto", "--total-env-steps", "2000")
    run_well("mpirun", ranks, *command, program=PROGRAMS / "audited_train.py")
    read = [json.loads((tmp_path / f"rank{rank}.json").read_text())["segments"] for rank in range(ranks)]
    assert sorted(name for own in read for name in own) == sorted(Path(file).name for file in segments)
    assert max(map(len, read)) - min(map(len, read)) <= 1
    if ranks == 2:
        own = [Path(file).name for file in segments if file.startswith("rank-00001")]
        assert sorted(read[1]) == sorted(own)


LONG = (
    *("--total-env-steps", "100000000", "--learning-starts", "200", "--evaluation-period", "0"),
    *("--checkpoint-period", "2000", "--log-period", "1000", "--train-period", "4", "--name", "long", *GENERAL),
)


@pytest.mark.faults
def test_a_run_directory_belongs_to_one_job_until_that_ends_however_it_does(
    persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    run_directory = tmp_path / "CartPole-v1" / "long"
    with launched("mpirun", 2, *LONG, "--runs-dir", tmp_path) as job:
        job.wait_until(lambda: any(run_directory.glob("checkpoints/*/manifest.json")))
        injected("second job on one run directory")
        second = persistent_ranks.run(2, "--resume", run_directory)
        assert second.code == 2, second.output
        assert second.output.count(f"another job is using {run_directory} (process {job.rank_pid(0)} on ") == 1
        assert "Traceback" not in second.output
        # The first goes on: lines of metrics come, and a checkpoint of a step behind them.
        seen = read_metrics(run_directory)[-1]["env_steps"]
        job.wait_until(lambda: int(newest_checkpoint(run_directory).name) > seen)
        assert read_metrics(run_directory)[-1]["env_steps"] > seen
        injected("rank killed by SIGKILL")
        os.kill(job.rank_pid(0), signal.SIGKILL)
        job.finish()
    end = str(int(newest_checkpoint(run_directory).name) + 2000)
    resumed = persistent_ranks.run_well(1, "--resume", run_directory, "--total-env-steps", end)
    assert "resumed from the checkpoint at env step" in resumed.output


def test_one_command_starts_a_run_and_goes_on_with_it(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    """A job killed before its first checkpoint starts anew, one killed later goes on: what a scheduler needs."""
    command = (*LONG, "--resume", "auto", "--runs-dir", tmp_path)
    run_directory = tmp_path / "CartPole-v1" / "long"
    with launched("mpirun", 2, *command, "--checkpoint-period", "100000000") as job:
        job.wait_until(lambda: (run_directory / "metrics.jsonl").exists() and len(read_metrics(run_directory)) > 2)
        os.kill(job.rank_pid(1), signal.SIGKILL)
        job.finish()
    with launched("mpirun", 2, *command) as job:
        job.wait_until(lambda: any(run_directory.glob("checkpoints/*/manifest.json")))
        os.kill(job.rank_pid(1), signal.SIGKILL)
        outcome = job.finish()
    assert "resumed from" not in outcome.output
    steps = [record["env_steps"] for record in read_metrics(run_directory, "training")]
    assert steps == sorted(set(steps)), "the first attempt's records are gone"
    end = str(int(newest_checkpoint(run_directory).name) + 2000)
    resumed = persistent_ranks.run_well(2, *command, "--total-env-steps", end)
    assert "resumed from the checkpoint at env step" in resumed.output


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_job_saves_and_stops_by_itself_before_its_time_is_up(tmp_path: Path, ranks: int) -> None:
    """Asked to stop after three seconds, at the next checkpoint; without one, half a minute later."""
    limit = ("--time-limit", "1:03", "--time-reserve-seconds", "60")
    outcome = run("mpirun", ranks, *LONG, *limit, "--runs-dir", tmp_path)
    assert outcome.code == 75, outcome.output
    assert outcome.output.count("stopped and saved at env step") == 1
    assert outcome.seconds < 63
