"""Laws of the snapshots that an elastic job restores, and of how often they are taken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import train
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.horovod_elastic import is_failed_collective
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.elastic.driver import ElasticDriver
from hvd_dqn.elastic.membership import Membership, rendezvous
from hvd_dqn.elastic.recovery import begin
from hvd_dqn.elastic.snapshot import COST, SnapshotSchedule
from hvd_dqn.elastic.state import SurvivorState, keep_survivor_state
from hvd_dqn.learner.learner import state_of
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.assembly import assemble
from hvd_dqn.training.job import Job
from hvd_dqn.training.run import close_job

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
ALONE = SingleCommunicator()


def _begun(folder: Path, state: SurvivorState, membership: Membership, total_env_steps: int, **changes: Any) -> Job:
    """Returns an assembled job of one rank that has restored what there was, and takes snapshots."""
    config = replace(Config(), CONFIG | {"runs_dir": str(folder), "total_env_steps": total_env_steps} | changes)
    runtime = Runtime(ALONE, 1, "CPU", False)
    job = assemble(config, runtime, StopRequest(), [train.__file__], state.handle, stream=state.stream)
    driver = SimpleNamespace(hosts_changed=lambda: False)
    begin(job, membership, state, cast(ElasticDriver, driver))
    return job


def _lose(job: Job, state: SurvivorState) -> None:
    keep_survivor_state(job, state)
    close_job(job, 1.0)
    state.handle.close(keep=True)


def _train_on(job: Job, env_steps: int) -> None:
    """Trains for some env steps, at whose end is no checkpoint, so no snapshot either."""
    job.config = replace(job.config, {"total_env_steps": 10**6})
    for _ in range(env_steps // job.config.environment.num_envs):
        job.stop.requested = True  # ends each call after one iteration
        assert not train.train(job)


def test_the_ranks_restore_the_snapshot_and_keep_their_replay(tmp_path: Path) -> None:
    state = SurvivorState()
    job = _begun(tmp_path, state, Membership(), 480)
    assert train.train(job)
    assert state.snapshot is not None
    assert state.snapshot.env_steps == 480
    kept, shared = state_of(job.learning.learner), job.shared_state()

    _train_on(job, 80)
    assert job.counters.env_steps == 560
    for name, vector in state_of(job.learning.learner).items():
        assert not np.array_equal(vector, kept[name]) or name == "target", "training went on"
        np.testing.assert_array_equal(state.snapshot.learner[name], kept[name], "a snapshot is a copy")
    before = job.learning.replay.contents()
    _lose(job, state)

    membership = rendezvous("alone", ALONE, state, job.stop)
    assert (membership.source, state.generation, state.reached) == (0, 1, 560)
    again = _begun(tmp_path, state, membership, 10**6)
    assert again.shared_state() == shared
    assert again.learning.learner.step == shared["counters"]["learner_steps"]
    for name, vector in state_of(again.learning.learner).items():
        np.testing.assert_array_equal(vector, kept[name])
    after = again.learning.replay.contents()
    for kept_column, column in zip(after, before, strict=True):
        np.testing.assert_array_equal(kept_column, column)
    assert again.acting.rng.random() != job.acting.rng.random()
    close_job(again)
    state.handle.close()


@pytest.mark.parametrize("vectorization", ["native", "sync"])
@pytest.mark.parametrize("boundary", ["keep", "reset"])
def test_the_open_episodes_go_on_from_where_they_are(vectorization: str, boundary: str, tmp_path: Path) -> None:
    """The snapshot's step is 80 env steps before, but the replay has all transitions up to the present ones."""
    state, changes = SurvivorState(), {"vectorization": vectorization, "checkpoint_boundary": boundary}
    job = _begun(tmp_path, state, Membership(), 480, **changes)
    assert train.train(job)
    _train_on(job, 80)
    before = job.acting.collector.state().to_json()["episodes"]
    _lose(job, state)
    again = _begun(tmp_path, state, rendezvous("alone", ALONE, state, job.stop), 10**6, **changes)
    after = again.acting.collector.state().to_json()["episodes"]
    if boundary == "keep":
        assert after == before
        assert any(episode["length"] > 0 for episode in after)
    else:
        assert [(episode["number"], episode["length"]) for episode in after] == [(480, 0)] * 4
    close_job(again)
    state.handle.close()


def test_what_is_lost_delays_learning_until_the_replay_is_filled_again(tmp_path: Path) -> None:
    state = SurvivorState()
    job = _begun(tmp_path, state, Membership(), 480)
    assert train.train(job)
    _lose(job, state)
    assert state.replay is not None
    state.replay.restore(state.replay.rows(np.arange(30)).whole(), 30)
    again = _begun(tmp_path, state, rendezvous("alone", ALONE, state, job.stop), 10**6)
    assert again.counters.learning_from_env_step == 480 + 70
    assert again.counters.learner_steps_due(4) == 0
    close_job(again)
    state.handle.close()


@given(st.floats(1e-6, 10.0), st.floats(0.1, 1e6))
def test_snapshots_take_their_share_of_the_time_and_are_no_rarer_than_that(cost: float, speed: float) -> None:
    schedule = SnapshotSchedule(period=0, first_period=1000)
    schedule.choose(cost, speed)
    assert cost * speed / schedule.period <= COST * (1 + 1e-9)
    assert schedule.period == 1 or cost * speed / (schedule.period - 1) > COST


def test_a_period_that_was_given_stays() -> None:
    schedule = SnapshotSchedule(period=300, first_period=1000)
    schedule.choose(10.0, 1000.0)
    assert schedule.period == 300


def test_one_slow_snapshot_does_not_change_the_cost() -> None:
    schedule = SnapshotSchedule(period=0, first_period=1000)
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
