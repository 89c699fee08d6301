"""Laws of what is counted between two log lines, and of the counters that steer the job."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.counters import Counters, crossed
from hvd_dqn.run.averages import LearnerAverages, RecentEpisodes, Speed


def test_recent_episodes_are_means_over_all_ranks() -> None:
    recent = RecentEpisodes()
    assert recent.summary() == {"mean_return": None, "mean_length": None}
    recent.add([[16, 10.0, 5], [16, 20.0, 15]])
    assert recent.summary() == {"mean_return": 15.0, "mean_length": 10.0}


def test_the_window_is_the_last_hundred_in_the_order_of_their_ends() -> None:
    """Rank 0's list comes first but its episodes ended last: they are the ones that stay."""
    recent = RecentEpisodes()
    late = [[2000 + i, 1.0, 10] for i in range(60)]
    early = [[1000 + i, 0.0, 30] for i in range(60)]
    recent.add(late + early)
    assert recent.summary() == {"mean_return": pytest.approx(0.6), "mean_length": pytest.approx(18.0)}
    recent.add([[3000 + i, 5.0, 1] for i in range(100)])
    assert recent.summary() == {"mean_return": 5.0, "mean_length": 1.0}


def test_episodes_that_end_together_keep_the_order_of_ranks() -> None:
    recent = RecentEpisodes()
    recent.add([[5, 2.0, 1], [5, 1.0, 1], [4, 3.0, 1]])
    assert recent.state()["returns"] == [3.0, 2.0, 1.0]


def test_recent_episodes_go_through_json_and_back() -> None:
    recent, restored = RecentEpisodes(), RecentEpisodes()
    recent.add([[i, float(i), i] for i in range(130)])
    restored.load(json.loads(json.dumps(recent.state())))
    for episodes in (recent, restored):
        episodes.add([[200, 1000.0, 7]])
    assert restored.summary() == recent.summary()
    assert restored.state() == recent.state()


def test_learner_averages_weigh_by_learner_steps() -> None:
    """One step of loss 4 and three of loss 8: 28 / 4 = 7."""
    averages = LearnerAverages()
    averages.add(1, 4.0, 1.0, -1.0)
    averages.add(3, 8.0, 5.0, 3.0)
    assert averages.take() == {"loss": 7.0, "abs_td_error": 4.0, "mean_q": 2.0}
    assert averages.take() == {"loss": None, "abs_td_error": None, "mean_q": None}


def test_speed_leaves_out_what_was_not_training() -> None:
    """100 steps in 0.1 s of training, with another 0.2 s spent elsewhere."""
    speed = Speed(1000, 50)
    began = time.monotonic()
    time.sleep(0.1)
    elsewhere = time.monotonic()
    time.sleep(0.2)
    speed.leave_out(time.monotonic() - elsewhere)
    training = elsewhere - began
    speeds = speed.take(1100, 60)
    assert speeds["env_steps_per_second"] == pytest.approx(100 / training, rel=0.15)
    assert speeds["learner_steps_per_second"] == pytest.approx(10 / training, rel=0.15)


def test_learning_starts_after_the_replay_has_filled_and_then_follows_the_env_steps() -> None:
    """learning_starts 100, one learner step per 4 env steps, 16 environments: the first is due at 112."""
    counters = Counters()
    counters.wait_for_replay(100)
    due = {}
    while counters.env_steps < 160:
        counters.env_steps += 16
        due[counters.env_steps] = counters.learner_steps_due(4)
        counters.learner_steps += due[counters.env_steps]
    assert due == {16: 0, 32: 0, 48: 0, 64: 0, 80: 0, 96: 0, 112: 3, 128: 4, 144: 4, 160: 4}


def test_a_resumed_run_waits_again_and_catches_nothing_up() -> None:
    counters = Counters(env_steps=1000, learner_steps=200)
    counters.wait_for_replay(100)
    assert counters.learner_steps_due(4) == 0
    counters.env_steps = 1100
    assert counters.learner_steps_due(4) == 0
    counters.env_steps = 1108
    assert counters.learner_steps_due(4) == 2


def test_a_skipped_update_is_not_made_up_for() -> None:
    """Sixteen are due: one of them is skipped; also after a replay that has to fill again."""
    counters = Counters()
    counters.env_steps = 16
    counters.learner_steps, counters.skipped_updates = 15, 1
    assert counters.learner_steps_due(1) == 0
    counters.env_steps = 20
    assert counters.learner_steps_due(1) == 4
    counters.wait_for_replay(10)
    counters.env_steps = 31
    assert counters.learner_steps_due(1) == 1


@given(st.integers(1, 50), st.integers(1, 64), st.integers(0, 300), st.integers(1, 60))
def test_learner_steps_earned_are_never_lost_nor_taken_early(period: int, envs: int, starts: int, turns: int) -> None:
    counters = Counters()
    counters.wait_for_replay(starts)
    for _ in range(turns):
        counters.env_steps += envs
        due = counters.learner_steps_due(period)
        assert due >= 0
        counters.learner_steps += due
    assert counters.learner_steps == max(0, counters.env_steps - starts) // period


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 64), st.integers(0, 300), st.integers(0, 60))
def test_after_a_change_of_the_train_period_learning_follows_the_new_one_and_catches_nothing_up(
    period: int, later: int, envs: int, starts: int, turns: int
) -> None:
    """A resume, or weak scaling on another number of ranks: K follows the env steps from there on."""
    counters = Counters()
    counters.change_train_period(period)
    counters.wait_for_replay(starts)
    for _ in range(turns):
        counters.env_steps += envs
        counters.learner_steps += counters.learner_steps_due(period)
    counters.change_train_period(later)
    before = counters.learner_steps
    first = max(counters.env_steps, starts)
    for _ in range(20):
        counters.env_steps += envs
        due = counters.learner_steps_due(later)
        assert 0 <= due <= envs // later + 1
        counters.learner_steps += due
        fresh = max(0, counters.env_steps - first) // later
        assert 0 <= counters.learner_steps - before - fresh <= int(later == period), "the same period keeps its phase"


def test_learner_steps_that_are_due_stay_due_when_the_train_period_changes() -> None:
    """With --policy-lag 1 those of the last iteration are still to come."""
    counters = Counters()
    counters.change_train_period(1)
    counters.env_steps = 16
    counters.change_train_period(4)
    assert counters.learner_steps_due(4) == 16
    counters.learner_steps += 16
    counters.env_steps = 24
    assert counters.learner_steps_due(4) == 2


def test_the_same_train_period_changes_nothing() -> None:
    counters = Counters(env_steps=103, learner_steps=25)
    counters.change_train_period(4)
    before = Counters(**counters.as_dict())
    counters.change_train_period(4)
    assert counters == before


def test_counters_go_through_json_and_back() -> None:
    counters = Counters(1, 2, 3, 4, 5, 6, 7, 8)
    assert Counters(**json.loads(json.dumps(counters.as_dict()))) == counters


@pytest.mark.parametrize(
    ("before", "after", "period", "due"),
    [
        (0, 16, 1000, False),
        (992, 1008, 1000, True),
        (984, 1000, 1000, True),
        (1000, 1016, 1000, False),
        (0, 5000, 1000, True),
        (5, 5, 5, False),
        (0, 10**9, 0, False),
        (4, 5, 5, True),
        (5, 6, 5, False),
    ],
)
def test_a_period_is_due_once_per_multiple_passed(before: int, after: int, period: int, due: bool) -> None:
    assert crossed(before, after, period) is due


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 30))
def test_periods_are_due_as_often_as_multiples_are_passed_when_steps_are_short(steps: list[int], period: int) -> None:
    now, count = 0, 0
    for step in (min(step, period) for step in steps):
        count += crossed(now, now + step, period)
        now += step
    assert count == now // period
