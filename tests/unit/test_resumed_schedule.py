"""Every field of the configuration may change when a run is resumed, and the schedule follows; or it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import train
from hvd_dqn.config import FIXED_ON_RESUME, Config, field_names, flatten, replace
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.errors import UserError
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.job import Job
from hvd_dqn.training.run import run_job

BASE: dict[str, Any] = {
    "total_env_steps": 400,
    "num_envs": 4,
    "learning_starts": 100,
    "train_period": 4,
    "global_batch_size": 8,
    "hidden_sizes": (8,),
    "replay_capacity": 400,
    "target_update_period": 8,
    "log_period": 40,
    "evaluation_period": 200,
    "evaluation_episodes": 2,
    "final_evaluation_episodes": 2,
    "checkpoint_period": 80,
    "progress": "off",
    "name": "run",
}
MORE = 480
"""Env steps of a resumed run in all."""
MAY_CHANGE: dict[str, list[Any]] = {
    "total_env_steps": [MORE],
    "seed": [5],
    "runs_dir": ["elsewhere"],
    "name": ["other"],
    "resume": [],  # every resume here gives it
    "allow_missing_replay": [True],
    "log_period": [20, 80],
    "record_period": [10_000],
    "checkpoint_period": [40, 160],
    "checkpoint_boundary": ["reset"],
    "keep_checkpoints": [1, 9],
    "num_envs": [1, 8],
    "vectorization": ["sync", "native"],
    "clip_rewards": [True],
    "network": ["mlp"],
    "precision": ["bfloat16"],
    "loss_scale": [512.0, 2048.0],
    "epsilon_schedule": ["exponential", "per-episode"],
    "epsilon_start": [0.5],
    "epsilon_end": [0.01, 0.2],
    "epsilon_decay_env_steps": [100, 100_000],
    "epsilon_decay_per_episode": [0.5, 0.999],
    "epsilon_ladder": [True],
    "replay": [],  # test_prioritized_runs.py
    "priority_exponent": [0.9],
    "importance_exponent": [0.9],
    "importance_rise_env_steps": [100],
    "replay_capacity": [40, 4000],
    "stacked_frames": [1, 2],
    "learning_starts": [1, 450],
    "global_batch_size": [1, 32],
    "learner": ["tensorflow"],  # the run began on the native one, where there is one
    "train_period": [1, 2, 8, 1000],
    "learning_rate": [1e-5, 1e-2],
    "learning_rate_end": [0.0, 0.5],
    "optimizer_epsilon": [1e-4],
    "loss": ["huber"],
    "gamma": [0.5, 1.0],
    "double": [True],
    "munchausen_bonus": [0.5],
    "munchausen_temperature": [0.1],
    "munchausen_floor": [-2.0],
    "max_grad_norm": [0.0, 1.0],
    "skip_nonfinite": [3],
    "target_update_period": [1, 1000],
    "policy_lag": [1],
    "strategy": ["local"],  # on several ranks: test_parallel_local.py
    "sync_period": [],  # test_parallel_local.py
    "scaling": ["weak"],
    "servers": [],  # this and the next two: test_parallel_served_runs.py
    "max_staleness": [],
    "staleness_lr": [],
    "evaluation_period": [0, 50],
    "evaluation_episodes": [1, 4],
    "final_evaluation_episodes": [1, 4],
    "evaluation_step_limit": [10, 1000],
    "evaluation_epsilon": [0.1],
    "device": ["cpu"],
    "threads_per_rank": [1],
    "bind_to_cores": [False],
    "profile": [True],
    "progress": ["plain"],
    "track": [],  # test_trackers.py
    "stall_timeout_seconds": [0.0, 100.0],
    "time_limit": ["1:00:00"],
    "time_reserve_seconds": [1.0],
    "snapshot_period": [100],
}
REFUSED: dict[str, Any] = {
    "env": "Acrobot-v1",
    "env_kwargs": '{"sutton_barto_reward": true}',
    "action_bins": 3,
    "protocol": "nature",
    "algorithm": "another",
    "n_step": 3,
    "atoms": 21,
    "value_min": -5.0,
    "value_max": 5.0,
    "quantiles": 21,
    "hidden_sizes": (16,),
    "impala_width": 2,
    "layer_norm": True,
    "spectral_norm": True,
    "dueling": True,
    "noisy": True,
    "optimizer": "sgd",
    "checkpoint_path": "memory://bucket/run",
}
NOT_FOR_CARTPOLE = {"action_bins", "algorithm", "protocol", "impala_width", "layer_norm", "spectral_norm"}
"""Of these, the run's config.json is given the other value, and the resume has the default."""
CASES = [(name, value) for name, values in MAY_CHANGE.items() for value in values]


def _run(**flat: Any) -> tuple[Job, list[int]]:
    """Runs a job; returns it, and how many learner steps each iteration made."""
    jobs: list[Job] = []
    made: list[int] = []

    def watched(job: Job) -> bool:
        jobs.append(job)
        add = job.records.averages.add
        job.records.averages.add = lambda steps, *means: (made.append(steps), add(steps, *means))  # type: ignore
        return train.train(job)

    config = replace(Config(), BASE | flat)
    runtime = Runtime(SingleCommunicator(), 1, "CPU", False)
    assert run_job(config, runtime, StopRequest(), [train.__file__], watched) == 0
    return jobs[0], made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the directory of a run of 400 env steps and 75 learner steps."""
    folder = tmp_path_factory.mktemp("runs")
    job, _ = _run(runs_dir=str(folder))
    assert (job.counters.env_steps, job.counters.learner_steps) == (400, 75)
    return job.directory.path


def test_every_field_is_known_to_change_or_to_be_refused() -> None:
    assert set(MAY_CHANGE) | set(FIXED_ON_RESUME) == set(field_names())
    assert set(REFUSED) == set(FIXED_ON_RESUME)
    assert not set(MAY_CHANGE) & set(FIXED_ON_RESUME)


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_resumed_run_learns_by_its_own_schedule_from_there_on(
    name: str, value: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One learner step per train period of the env steps since the resume, spread over the iterations."""
    monkeypatch.chdir(tmp_path)  # for the folder of runs_dir
    run_directory = shutil.copytree(trained, tmp_path / "copy")
    flat = {"resume": str(run_directory), "total_env_steps": MORE} | {name: value}
    job, made = _run(**flat)
    counters, environments = job.counters, job.config.environment.num_envs
    assert job.directory.path == run_directory
    assert 0 <= counters.env_steps - MORE < environments
    period = job.config.learner.train_period
    delayed = 0 if name != "policy_lag" else 1  # those of the last iteration are not made yet
    since = counters.env_steps - 400 - delayed * environments
    assert counters.learner_steps - 75 == since // period
    assert max(made) <= -(-environments // period)
    syncs = job.config.learner.target_update_period
    if syncs > 1:  # otherwise one per iteration with learner steps
        assert counters.target_updates - 75 // 8 == counters.learner_steps // syncs - 75 // syncs
    recorded = json.loads((run_directory / "config.json").read_text())["config"]
    if name not in ("resume", "allow_missing_replay"):  # these are of one start only
        assert recorded[name] == value


@pytest.mark.parametrize("name", FIXED_ON_RESUME)
def test_a_field_that_cannot_change_is_refused_with_the_reason(name: str, trained: Path, tmp_path: Path) -> None:
    run_directory = shutil.copytree(trained, tmp_path / "copy")
    before = {path: path.read_bytes() for path in run_directory.rglob("*") if path.is_file() and path.name != "lock"}
    config = replace(Config(), BASE | {"resume": str(run_directory), "total_env_steps": MORE, name: REFUSED[name]})
    if name in NOT_FOR_CARTPOLE:
        config = replace(config, {name: flatten(Config())[name]})
        path = run_directory / "config.json"
        record = json.loads(path.read_text())
        record["config"][name] = REFUSED[name]
        path.write_text(json.dumps(record))
        before[path] = path.read_bytes()
    runtime = Runtime(SingleCommunicator(), 1, "CPU", False)
    with pytest.raises(UserError, match="trained with another configuration") as caught:
        run_job(config, runtime, StopRequest(), [train.__file__], train.train)
    assert FIXED_ON_RESUME[name] in str(caught.value)
    assert f"--{name.replace('_', '-')} " in str(caught.value)
    assert {path: path.read_bytes() for path in before} == before


def test_fewer_env_steps_than_are_done_are_refused(trained: Path, tmp_path: Path) -> None:
    run_directory = shutil.copytree(trained, tmp_path / "copy")
    config = replace(Config(), BASE | {"resume": str(run_directory), "total_env_steps": 200})
    runtime = Runtime(SingleCommunicator(), 1, "CPU", False)
    with pytest.raises(UserError, match="raise --total-env-steps"):
        run_job(config, runtime, StopRequest(), [train.__file__], train.train)
    assert flatten(config)["total_env_steps"] == 200
