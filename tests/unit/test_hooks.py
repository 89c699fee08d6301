"""Laws of the hooks: when each is due, and what happens after one that stops the job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.config import Config, replace
from hvd_dqn.counters import Counters
from hvd_dqn.run.progress import NullDisplay
from hvd_dqn.training.evaluation import Evaluation
from hvd_dqn.training.hooks import (
    Evaluate,
    Log,
    RaiseFaults,
    Record,
    ReportFailedSave,
    SaveCheckpoint,
    SetPace,
    Stop,
    make_hooks,
)
from hvd_dqn.training.job import Hook, Iteration, Job
from hvd_dqn.training.signals import Signals
from hvd_dqn.training.updates import UpdatesAfterCollecting

TOTAL = 1000


def _job(hooks: list[Hook], env_steps: int = 0) -> Job:
    """Returns those parts of a job that decide which hooks are due."""
    nothing = cast(Any, None)
    evaluation = Evaluation(nothing, nothing, nothing, nothing, nothing, seed=0, tick=nothing, warn=nothing)
    config = replace(Config(), {"total_env_steps": TOTAL})
    parts = SimpleNamespace(
        config=config, counters=Counters(env_steps=env_steps), hooks=hooks, evaluation=evaluation, met=Counters()
    )
    parts.records = SimpleNamespace(display=NullDisplay(), warn_of_long_iterations=lambda: None)
    parts.learning = SimpleNamespace(one_by_one=False, updates=UpdatesAfterCollecting())
    return cast(Job, parts)


def _iteration(before: int, after: int, **signals: float) -> Iteration:
    return Iteration(before, after, after >= TOTAL, Signals(**signals), None)


class _Recorded:
    """A hook that is always due and notes that it has run."""

    def __init__(self, ran: list[int], number: int, goes_on: bool = True) -> None:
        self._ran, self._number, self._goes_on = ran, number, goes_on

    def due(self, job: Job, iteration: Iteration) -> bool:
        return True

    def run(self, job: Job, iteration: Iteration) -> bool:
        self._ran.append(self._number)
        return self._goes_on


def test_hooks_run_in_their_order_up_to_the_one_that_stops_the_job() -> None:
    ran: list[int] = []
    hooks: list[Hook] = [_Recorded(ran, 1), _Recorded(ran, 2, goes_on=False), _Recorded(ran, 3)]
    assert not Job.run_hooks(_job(hooks), Signals(), None)
    assert ran == [1, 2]
    assert Job.run_hooks(_job(hooks[:1]), Signals(), None)


def test_a_fault_comes_first_and_a_stop_before_evaluation_and_checkpoint() -> None:
    kinds = [type(hook) for hook in make_hooks(Config())]
    assert kinds == [RaiseFaults, SetPace, ReportFailedSave, Log, Stop, Evaluate, Record, SaveCheckpoint]


@pytest.mark.parametrize("make", [Log, Evaluate, SaveCheckpoint])
@given(period=st.integers(1, 300), step=st.integers(1, 50))
def test_a_period_is_due_once_for_each_multiple_and_at_the_end(make: Any, period: int, step: int) -> None:
    hook, job = make(period), _job([])
    due = [after for after in range(step, TOTAL + step, step) if hook.due(job, _iteration(after - step, after))]
    expected = {-(-multiple // step) * step for multiple in range(period, TOTAL + step, period)}
    last = -(-TOTAL // step) * step
    assert set(due) == {after for after in expected if after <= last} | {last}


def test_without_a_period_nothing_is_evaluated_not_even_at_the_end() -> None:
    assert not Evaluate(0).due(_job([]), _iteration(TOTAL - 4, TOTAL))


def test_films_are_due_at_each_multiple_and_at_the_end_only_if_it_is_one() -> None:
    for period, due in ((0, []), (300, [304, 600, 904]), (250, [256, 504, 752, 1000])):
        hook, job = Record(period), _job([])
        assert [end for end in range(8, TOTAL + 8, 8) if hook.due(job, _iteration(end - 8, end))] == due


def test_a_new_best_evaluation_is_saved_and_a_worse_one_is_not() -> None:
    job, hook = _job([]), SaveCheckpoint(500)
    for env_steps, score, due in ((8, 1.0, True), (16, 0.5, False), (24, 2.0, True)):
        job.evaluation.note(env_steps, score)
        assert hook.due(job, _iteration(env_steps - 8, env_steps)) is due
        assert job.evaluation.score_at(env_steps) == score
    assert job.evaluation.best_score == 2.0
    assert job.evaluation.score_at(32) is None


@pytest.mark.parametrize(
    ("hook", "signal"),
    [(RaiseFaults(), "fault"), (SetPace(), "slow"), (ReportFailedSave(), "save_failed"), (Stop(), "stop")],
)
def test_one_rank_is_enough_to_signal_all(hook: Hook, signal: str) -> None:
    own, other = Signals(), Signals(**{signal: 1.0})
    summed = Signals.of(own.vector() + other.vector())
    assert summed == other
    assert hook.due(_job([]), Iteration(0, 8, False, summed, None))
    assert not hook.due(_job([]), Iteration(0, 8, False, own, None))


def test_learner_steps_are_made_one_by_one_for_as_long_as_a_rank_is_slow() -> None:
    job, hook, seen = _job([]), SetPace(), []
    for slow in (0.0, 1.0, 2.0, 0.0, 0.0):
        iteration = _iteration(0, 8, slow=slow)
        if hook.due(job, iteration):
            assert hook.run(job, iteration)
        seen.append(job.learning.one_by_one)
    assert seen == [False, True, True, False, False]
