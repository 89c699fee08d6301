"""Laws of records while a job runs: what cannot be written is said once, and the job is not its records."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest

import train
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.errors import UserError
from hvd_dqn.run.metrics import DiskMetrics, NullMetrics
from hvd_dqn.run.profile import IterationProfile
from hvd_dqn.run.progress import PlainDisplay
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.hooks import SetPace
from hvd_dqn.training.job import Job
from hvd_dqn.training.records import Records
from hvd_dqn.training.run import run_job

CONFIG = {
    "total_env_steps": 800,
    "num_envs": 4,
    "learning_starts": 100,
    "train_period": 8,
    "global_batch_size": 8,
    "hidden_sizes": (8,),
    "log_period": 100,
    "evaluation_period": 0,
    "checkpoint_period": 400,
    "final_evaluation_episodes": 1,
    "progress": "plain",
    "name": "run",
}


def _on_a_full_disk(job: Job) -> bool:
    """Trains with metrics that are written to a device that is always full."""
    assert isinstance(job.records.metrics, DiskMetrics)
    full = os.open("/dev/full", os.O_WRONLY)
    for file in (job.records.metrics._jsonl, job.records.metrics._events._file):
        os.dup2(full, file._file.fileno())
    os.close(full)
    return train.train(job)


def test_metrics_that_cannot_be_written_are_warned_about_once_and_the_run_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(Config(), CONFIG | {"runs_dir": str(tmp_path)})
    runtime = Runtime(SingleCommunicator(), 1, "CPU", False)
    assert run_job(config, runtime, StopRequest(), [train.__file__], _on_a_full_disk) == 0
    shown = capsys.readouterr().out
    assert shown.count("metrics cannot be written: [Errno 28] No space left on device") == 1
    assert "Greedy evaluation" in shown
    assert len(list((tmp_path / "CartPole-v1" / "run" / "checkpoints").glob("*/manifest.json"))) == 2


def test_learner_steps_made_one_by_one_are_the_same_steps(tmp_path: Path) -> None:
    """The weights are equal bit for bit, and a call of several learner steps becomes as many calls."""
    calls: list[list[int]] = []
    weights: list[bytes] = []

    def watched(job: Job) -> bool:
        learner, sizes = job.learning.learner, list[int]()
        learn = learner.learn
        learner.learn = lambda batches, factors, signals: sizes.append(len(factors)) or learn(batches, factors, signals)  # type: ignore
        job.learning.one_by_one = len(calls) == 1
        job.hooks = [hook for hook in job.hooks if not isinstance(hook, SetPace)]
        done = train.train(job)
        calls.append(sizes)
        weights.append(np.asarray(learner.online).tobytes())
        return done

    for name in ("whole", "single"):
        config = replace(Config(), CONFIG | {"runs_dir": str(tmp_path), "name": name, "train_period": 1})
        runtime = Runtime(SingleCommunicator(), 1, "CPU", False)
        assert run_job(config, runtime, StopRequest(), [train.__file__], watched) == 0
    assert set(calls[0]) == {4}
    assert calls[1] == [1] * sum(calls[0])
    assert weights[0] == weights[1]


def test_iterations_longer_than_a_launcher_waits_are_warned_about_once(capsys: pytest.CaptureFixture[str]) -> None:
    profile = IterationProfile()
    records = Records(0, NullMetrics(), PlainDisplay(100), profile, None, under_launcher=True)
    warnings = []
    for seconds in (5.0, 0.1, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        profile.last_seconds = seconds
        records.warn_of_long_iterations()
        warnings.append(capsys.readouterr().out.count("an iteration takes 2.0 s"))
    assert warnings == [0, 0, 0, 0, 1, 0, 0, 0]


def test_a_job_warns_of_its_long_iterations_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if a launcher waited for no time at all."""
    monkeypatch.setattr("hvd_dqn.training.records._LAUNCHERS_LEAVE_SECONDS", 0.0)

    def launched(job: Job) -> bool:
        job.records.under_launcher = True
        return train.train(job)

    config = replace(Config(), CONFIG | {"runs_dir": str(tmp_path)})
    runtime = Runtime(SingleCommunicator(), 1, "CPU", False)
    assert run_job(config, runtime, StopRequest(), [train.__file__], launched) == 0
    assert capsys.readouterr().out.count("mpirun and horovodrun kill their ranks") == 1


def test_a_resume_on_a_full_disk_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    config = replace(Config(), CONFIG | {"runs_dir": str(tmp_path)})
    runtime = Runtime(SingleCommunicator(), 1, "CPU", False)
    assert run_job(config, runtime, StopRequest(), [train.__file__], train.train) == 0
    run_directory = tmp_path / "CartPole-v1" / "run"
    records = (run_directory / "metrics.jsonl").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(job: Job) -> bool:
        raise AssertionError("it must not train")

    on_a_full_disk = replace(config, {"resume": str(run_directory), "total_env_steps": 1600})
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(UserError, match="File too large"):
            run_job(on_a_full_disk, runtime, StopRequest(), [train.__file__], full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (run_directory / "metrics.jsonl").read_bytes() == records
