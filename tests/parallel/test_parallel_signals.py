"""A signal to one rank makes all of them save together and end with exit code 75; --resume goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from forms import only_in_full
from launching import GENERAL, launched, newest_checkpoint, read_metrics
from persistent_ranks import PersistentRanks

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

RUN = (
    *("--total-env-steps", "100000000", "--learning-starts", "200", "--log-period", "200"),
    *("--evaluation-period", "1000", "--evaluation-episodes", "4", "--final-evaluation-episodes", "4"),
    *("--train-period", "4", "--name", "stopped", *GENERAL),
)


def state_of(run_directory: Path) -> dict[str, Any]:
    """Returns the newest checkpoint's counters and statistics."""
    return json.loads((newest_checkpoint(run_directory) / "state.json").read_text())


@pytest.mark.parametrize(
    ("number", "rank"),
    [
        (signal.SIGUSR1, 1),
        pytest.param(signal.SIGTERM, 0, marks=only_in_full),
        pytest.param(signal.SIGHUP, 1, marks=only_in_full),
    ],
)
def test_a_signal_to_one_rank_saves_the_job_and_resume_continues_it(
    number: signal.Signals, rank: int, persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """All ranks stop at one step, whose checkpoint jobs of other sizes continue to the end."""
    run_directory = tmp_path / "CartPole-v1" / "stopped"
    with launched("mpirun", 2, *RUN, "--runs-dir", tmp_path) as job:
        job.wait_for("evaluation at env step 1,008")
        injected("request to stop (to a rank)")
        os.kill(job.rank_pid(rank), number)
        outcome = job.finish()
    assert outcome.code == 75, outcome.output
    assert outcome.output.count("stopped and saved at env step") == 1
    assert f"--resume {run_directory}" in outcome.output
    assert "Traceback" not in outcome.output
    saved = state_of(run_directory)
    assert saved["counters"]["learner_steps"] > 0
    assert saved["best_score"] is not None
    assert f"saved at env step {saved['counters']['env_steps']:,};" in outcome.output
    for ranks in (1, 3):
        copy = shutil.copytree(run_directory, tmp_path / f"on {ranks}")
        check_that_it_continues(copy, ranks, saved, persistent_ranks)


def check_that_it_continues(
    run_directory: Path, ranks: int, saved: dict[str, Any], persistent_ranks: PersistentRanks
) -> None:
    """Resumes on a number of ranks, and checks that nothing starts at zero."""
    end = saved["counters"]["env_steps"] + 800
    more = ("--resume", run_directory, "--total-env-steps", str(end), "--evaluation-period", "0")
    resumed = persistent_ranks.run_well(ranks, *more)
    assert f"resumed from the checkpoint at env step {saved['counters']['env_steps']:,}" in resumed.output
    after = state_of(run_directory)
    assert end <= after["counters"]["env_steps"] < end + 16
    assert after["counters"]["learner_steps"] > saved["counters"]["learner_steps"]
    assert after["counters"]["episodes"] > saved["counters"]["episodes"]
    assert after["best_score"] == saved["best_score"]
    assert json.loads((run_directory / "config.json").read_text())["ranks"] == ranks
    env_steps = [record["env_steps"] for record in read_metrics(run_directory, "training")]
    assert env_steps == sorted(set(env_steps))
    assert env_steps[-1] == after["counters"]["env_steps"]


def test_a_signal_during_an_evaluation_stops_all_ranks_too(tmp_path: Path, injected: Any) -> None:
    """A rank that gets the signal while episodes are played stops the others with it, and the job is saved."""
    endless = ("--env", "hostile_envs:Endless-v0", "--evaluation-step-limit", "0", "--checkpoint-period", "100000000")
    with launched("mpirun", 2, *RUN, *endless, "--runs-dir", tmp_path) as job:
        # The last record before the first evaluation, which never ends.
        metrics = tmp_path / "hostile_envs-Endless-v0" / "stopped" / "metrics.jsonl"
        job.wait_until(lambda: metrics.exists() and '"env_steps": 1008' in metrics.read_text())
        injected("request to stop (to a rank)")
        os.kill(job.rank_pid(1), signal.SIGUSR1)
        outcome = job.finish()
    assert outcome.code == 75, outcome.output
    assert "evaluation at env step" not in outcome.output
    assert state_of(tmp_path / "hostile_envs-Endless-v0" / "stopped")["counters"]["env_steps"] == 1008


@pytest.mark.parametrize("number", [signal.SIGHUP, pytest.param(signal.SIGINT, marks=only_in_full)])
def test_interrupting_a_single_process_saves_it_and_says_how_to_resume(
    number: signal.Signals, tmp_path: Path, injected: Any
) -> None:
    """Ctrl-C or a closed terminal, on `python train.py`: exit code 75, a checkpoint, and the command that goes on."""
    run_directory = tmp_path / "CartPole-v1" / "stopped"
    with launched("python", 1, *RUN, "--runs-dir", tmp_path) as job:
        job.wait_for("env steps/s")
        injected("request to stop (to a rank)")
        os.kill(job.process.pid, number)
        outcome = job.finish()
    assert outcome.code == 75, outcome.output
    assert f"resume with: --resume {run_directory}" in outcome.output
    assert "Traceback" not in outcome.output
    assert state_of(run_directory)["counters"]["env_steps"] > 0


@pytest.mark.parametrize(("ranks", "capacity", "warned"), [(2, 50_000, 1), (2, 5_000, 0), (1, 50_000, 0)])
def test_a_job_that_a_launcher_may_end_before_it_has_saved_says_so_at_the_start(
    ranks: int, capacity: int, warned: int, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """A replay of 50,000 images of 60 x 60 x 2 on two ranks: 344 MiB each."""
    short = ("--total-env-steps", "32", "--evaluation-period", "0", "--final-evaluation-episodes", "1")
    images = ("--env", "image_envs:Dot-v0", "--network", "mlp", "--hidden-sizes", "2", "--replay-capacity", capacity)
    outcome = persistent_ranks.run_well(ranks, *short, *map(str, images), *GENERAL, "--runs-dir", tmp_path)
    assert outcome.output.count("the replay grows to 344 MiB per rank. mpirun and horovodrun kill") == warned
