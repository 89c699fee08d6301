"""Laws of local SGD that one rank can show: what an average of one changes, when it is due, what is kept until then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import train
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.errors import JobFault, UserError
from hvd_dqn.learner.learner import state_of
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.strategies import describe
from hvd_dqn.training.job import Job, Updates
from hvd_dqn.training.local_updates import LocalUpdates, parts_of
from hvd_dqn.training.run import run_job
from hvd_dqn.training.signals import Signals
from hvd_dqn.training.updates import UpdatesAfterCollecting
from hvd_dqn.validation import validate

BASE: dict[str, Any] = {
    "total_env_steps": 240,
    "num_envs": 4,
    "learning_starts": 80,
    "train_period": 1,
    "global_batch_size": 8,
    "hidden_sizes": (8,),
    "replay_capacity": 400,
    "target_update_period": 8,
    "log_period": 40,
    "evaluation_period": 0,
    "final_evaluation_episodes": 1,
    "checkpoint_period": 80,
    "progress": "off",
    "name": "run",
}
"""Four learner steps per iteration, 160 in all; a batch whose size is a power of two, so that its factors are exact."""


class _Counting(SingleCommunicator):
    """One rank that counts its sums."""

    def __init__(self) -> None:
        self.sums: list[int] = []

    def sum(self, values: np.ndarray) -> np.ndarray:
        self.sums.append(len(values))
        return values.copy()


def _train(folder: Path, updates: Updates, **flat: Any) -> tuple[Job, list[int]]:
    """Runs a job on one rank with these updates; returns it and the lengths of the sums that training made."""
    jobs: list[Job] = []
    communicator = _Counting()

    def watched(job: Job) -> bool:
        job.learning.updates = updates
        jobs.append(job)
        communicator.sums.clear()
        done = train.train(job)
        made.extend(communicator.sums)
        return done

    made: list[int] = []
    config = replace(Config(), BASE | {"runs_dir": str(folder)} | flat)
    assert run_job(config, Runtime(communicator, 1, "CPU", False), StopRequest(), [train.__file__], watched) == 0
    return jobs[0], made


def _digest(job: Job) -> dict[str, bytes]:
    return {name: vector.tobytes() for name, vector in state_of(job.learning.learner).items()}


@pytest.mark.parametrize("learner", ["tensorflow", "auto"])
@pytest.mark.parametrize("period", [1, 3, 4, 8])
def test_an_average_over_one_rank_changes_nothing(learner: str, period: int, tmp_path: Path) -> None:
    """Bit for bit the weights, optimizer state and counters of allreduce, where targets are due at averages."""
    plain, _ = _train(tmp_path / "a", UpdatesAfterCollecting(), learner=learner)
    local, _ = _train(tmp_path / "b", LocalUpdates(period), learner=learner)
    assert plain.counters == local.counters
    assert plain.counters.target_updates == 20
    assert _digest(plain) == _digest(local)


@pytest.mark.parametrize(
    ("period", "averages"), [(1, 160), (2, 80), (3, 80), (4, 40), (5, 20), (8, 20), (100, 2), (1000, 1)]
)
def test_there_is_one_sum_per_period_of_updates_and_one_per_iteration_before_learning(
    period: int, averages: int, tmp_path: Path
) -> None:
    """A period within an iteration of four splits it; a longer one is rounded up to iterations; the last ends one."""
    job, made = _train(tmp_path, LocalUpdates(period), log_period=1000, checkpoint_period=1000)
    parameters = 3 * job.learning.learner.layout.total
    assert sum(length >= parameters for length in made) == averages
    assert len([length for length in made if 1 < length < parameters]) == 80 // 4


def test_statistics_are_means_over_all_updates_since_the_ranks_synchronised(tmp_path: Path) -> None:
    """A log line over whole periods reports what allreduce reports."""
    lines: list[dict[str, Any]] = []
    for updates in (UpdatesAfterCollecting(), LocalUpdates(8)):
        job, _ = _train(tmp_path / str(len(lines)), updates, log_period=1000)
        records = [json.loads(line) for line in (job.directory.path / "metrics.jsonl").read_text().splitlines()]
        lines += [record for record in records if record["kind"] == "training"]
    plain, local = lines
    for name in ("loss", "abs_td_error", "mean_q"):
        assert local[name] == pytest.approx(plain[name], rel=1e-5)
    assert local["learner_steps"] == plain["learner_steps"] == 160
    assert local["episodes"] == plain["episodes"]


@given(st.integers(0, 200), st.integers(1, 50))
def test_parts_of_an_iteration_are_its_updates(updates: int, period: int) -> None:
    parts = parts_of(updates, period)
    assert sum(parts) == updates
    assert all(part > 0 for part in parts)
    assert max(parts, default=0) <= period
    assert set(parts[:-1]) <= {period}


def test_signals_of_two_iterations_add_episodes_and_keep_what_was_signalled_once() -> None:
    joined = Signals(episodes=3, slow=1.0, stop=1.0).joined(Signals(episodes=2, stop=1.0, fault=1.0))
    assert joined == Signals(episodes=5, slow=1.0, stop=1.0, fault=1.0)


def test_weights_that_are_not_finite_end_the_job_before_they_are_averaged(tmp_path: Path) -> None:
    class Poisoned(LocalUpdates):
        def _average(self, job: Job, riders: np.ndarray) -> np.ndarray:
            learner = job.learning.learner
            online = np.array(learner.online)
            online[3] = np.inf
            learner.load(online, learner.target, learner.slots)
            return super()._average(job, riders)

    with pytest.raises(JobFault, match=r"after learner step 8 are not finite on rank\(s\) 0; they were not averaged"):
        _train(tmp_path, Poisoned(8))


@pytest.mark.parametrize(
    ("changes", "ranks", "says"),
    [
        ({}, 1, "none (one rank)"),
        ({}, 2, "allreduce, by MPI_Allreduce"),
        ({"strategy": "local"}, 1, "none (one rank)"),
        ({"strategy": "local"}, 2, "local, averaged every 16 updates of each rank"),
        ({"strategy": "local", "sync_period": 5}, 2, "local, averaged every 5 updates of each rank"),
        (
            {"strategy": "local", "sync_period": 20},
            2,
            "local, averaged every 20 updates of each rank, rounded up to whole iterations",
        ),
    ],
)
def test_the_strategy_is_described_as_it_runs(changes: dict[str, Any], ranks: int, says: str) -> None:
    """Sixteen updates in an iteration."""
    assert describe(replace(Config(), changes), "native", ranks) == says


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sync_period": 4}, "--sync-period is for --strategy local, and --strategy is allreduce"),
        ({"sync_period": 0, "strategy": "local"}, "--sync-period is 0: give at least 1"),
        ({"strategy": "local", "policy_lag": 1}, "leave --policy-lag or --strategy local out"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        validate(replace(Config(), changes))
