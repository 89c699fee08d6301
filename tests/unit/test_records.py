"""Laws of records while a job runs: what cannot be written is said once, and the job is not its records."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import train
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.run.metrics import DiskMetrics
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.job import Job
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
