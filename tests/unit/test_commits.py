"""Laws of the copies in memory to which an elastic job comes back, and of how often they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import train
from hvd_dqn.checkpoint.restore import restore
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.elastic.membership import ElasticMembers, is_failed_collective
from hvd_dqn.elastic.recovery import meet, rescue, take_over
from hvd_dqn.elastic.snapshot import begin_commits
from hvd_dqn.elastic.state import COST, CommitSchedule, Kept
from hvd_dqn.learner.learner import state_of
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.assembly import assemble, reset_environments
from hvd_dqn.training.job import Job

CONFIG: dict[str, Any] = {
    "num_envs": 4,
    "learning_starts": 100,
    "train_period": 4,
    "global_batch_size": 16,
    "replay_capacity": 1000,
    "hidden_sizes": (8,),
    "log_period": 120,
    "evaluation_period": 0,
    "progress": "off",
    "snapshot_period": 10_000,
}


def _assembled(folder: Path, kept: Kept, total_env_steps: int) -> tuple[Job, Runtime]:
    config = replace(Config(), CONFIG | {"runs_dir": str(folder), "total_env_steps": total_env_steps})
    alone = SingleCommunicator()
    runtime = Runtime(alone, ElasticMembers(alone, set()), 1, "CPU", False)  # type: ignore[arg-type]
    return assemble(config, runtime, StopRequest(), [train.__file__], kept), runtime


def _train_on(job: Job, env_steps: int) -> None:
    """Trains for some env steps, at whose end is no checkpoint, so no commit either."""
    job.config = replace(job.config, {"total_env_steps": 10**6})
    for _ in range(env_steps // job.config.environment.num_envs):
        job.stop.requested = True  # ends each call after one iteration
        assert not train.train(job)


def test_the_ranks_come_back_to_the_commit_and_keep_their_replay(tmp_path: Path) -> None:
    kept = Kept()
    job, runtime = _assembled(tmp_path, kept, 480)
    restore(job)
    reset_environments(job, occasion=0)
    begin_commits(job)
    assert train.train(job)
    assert kept.commit is not None
    assert kept.commit.env_steps == 480
    committed, shared = state_of(job.learner), job.shared_state()

    _train_on(job, 80)
    assert job.counters.env_steps == 560
    for name, vector in state_of(job.learner).items():
        assert not np.array_equal(vector, committed[name]) or name == "target", "training went on"
        np.testing.assert_array_equal(kept.commit.learner[name], committed[name], "a commit is a copy")
    before = job.replay.contents()
    assert not before.truncated[-1]
    rescue(job, kept)
    train.close(job, kept, lost=True)

    meeting = meet(runtime, kept, job.stop)
    assert (meeting.source, kept.generation, kept.reached) == (0, 1, 560)
    again, _ = _assembled(tmp_path, kept, 10**6)
    take_over(again, meeting)
    assert again.shared_state() == shared
    assert again.learner.step == shared["counters"]["learner_steps"]
    for name, vector in state_of(again.learner).items():
        np.testing.assert_array_equal(vector, committed[name])
    after = again.replay.contents()
    np.testing.assert_array_equal(after.s_tm1, before.s_tm1)
    newest = slice(-CONFIG["num_envs"], None)
    assert (after.truncated | after.terminated)[newest].all(), "nobody goes on with the open episodes"
    assert again.policy_rng.random() != job.policy_rng.random()
    train.close(again, kept, lost=False)


def test_what_is_lost_puts_learning_off_until_the_replay_is_filled_again(tmp_path: Path) -> None:
    kept = Kept()
    job, runtime = _assembled(tmp_path, kept, 480)
    restore(job)
    reset_environments(job, occasion=0)
    begin_commits(job)
    assert train.train(job)
    rescue(job, kept)
    train.close(job, kept, lost=True)
    assert kept.replay is not None
    kept.replay = type(kept.replay)(*(column[:30] for column in kept.replay))
    meeting = meet(runtime, kept, job.stop)
    again, _ = _assembled(tmp_path, kept, 10**6)
    take_over(again, meeting)
    assert again.counters.learning_from_env_step == 480 + 70
    assert again.counters.learner_steps_due(4) == 0
    train.close(again, kept, lost=False)


@given(st.floats(1e-6, 10.0), st.floats(0.1, 1e6))
def test_commits_take_their_share_of_the_time_and_are_no_rarer_than_that(cost: float, speed: float) -> None:
    schedule = CommitSchedule(period=0, first_period=1000)
    schedule.choose(cost, speed)
    assert cost * speed / schedule.period <= COST * (1 + 1e-9)
    assert schedule.period == 1 or cost * speed / (schedule.period - 1) > COST


def test_a_period_that_was_given_stays() -> None:
    schedule = CommitSchedule(period=300, first_period=1000)
    schedule.choose(10.0, 1000.0)
    assert schedule.period == 300


def test_one_slow_commit_does_not_change_the_cost() -> None:
    schedule = CommitSchedule(period=0, first_period=1000)
    assert schedule.cost_seconds == 0.0
    for seconds in (0.002, 5.0, 0.001, 0.003, 0.002):
        schedule.add_cost(seconds)
    assert schedule.cost_seconds == 0.002


def test_an_exception_of_our_own_inside_a_graph_is_no_lost_peer() -> None:
    def broken() -> np.ndarray:
        raise OSError("HorovodCommunicator could not do it")

    with pytest.raises(tf.errors.OpError) as caught:
        tf.function(lambda: tf.numpy_function(broken, [], tf.float32))()
    assert not is_failed_collective(caught.value)
    assert not is_failed_collective(ValueError("HorovodAllreduce"))
