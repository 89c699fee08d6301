"""Laws of n-step transitions, against a reference that looks at whole episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.envs.n_step import NStep
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import UserError
from hvd_dqn.transition import Transition

GAMMA = 0.9
SPACES = Spaces((1,), np.dtype(np.float32), 0, 2)


class Step(NamedTuple):
    """One environment's step; None where it only reset itself."""

    reward: float
    terminated: bool
    truncated: bool


STEPS = st.lists(
    st.one_of(
        st.none(),
        st.builds(Step, st.floats(-2, 2, width=32), st.booleans(), st.booleans()),
        st.builds(Step, st.floats(-2, 2, width=32), st.just(False), st.just(False)),
    ),
    max_size=25,
)
STREAMS = st.lists(STEPS, min_size=1, max_size=4)
Stream = Sequence[Step | None]
Rows = list[tuple[float, ...]]


def _expected(stream: Stream, n: int, env: int) -> Rows:
    """Returns an environment's transitions as (s_tm1, r_t, discount_t, s_t), from its episodes as a whole."""
    steps = [(time, step) for time, step in enumerate(stream) if step is not None]
    found: Rows = []
    for start in range(len(steps)):
        total, discount = 0.0, 1.0
        for length, (time, step) in enumerate(steps[start:], 1):
            total += discount * step.reward
            discount *= 0.0 if step.terminated else GAMMA
            ended = step.terminated or step.truncated
            if ended or length == n:
                found.append((_observation(env, steps[start][0]), total, discount, _observation(env, time + 1)))
                break
    return found


def _observation(env: int, time: int) -> float:
    return 1000.0 * env + time


def _run(windows: NStep, streams: Sequence[Stream], times: range) -> Rows:
    found: Rows = []
    for time in times:
        now = {env: stream[time] for env, stream in enumerate(streams) if time < len(stream)}
        acting = {env: step for env, step in now.items() if step is not None}
        envs = np.array(list(acting), np.int64)
        steps = list(acting.values())
        transition = Transition(
            np.array([[_observation(env, time)] for env in acting], np.float32).reshape(-1, 1),
            envs.astype(np.int32),
            np.array([step.reward for step in steps], np.float32),
            np.array([0.0 if step.terminated else GAMMA for step in steps], np.float32),
            np.array([[_observation(env, time + 1)] for env in acting], np.float32).reshape(-1, 1),
        )
        ended = np.array([step.terminated or step.truncated for step in steps], np.bool_)
        found += _rows(windows.add(transition, envs, ended))
    return found


def _rows(batch: Transition) -> Rows:
    columns = batch.s_tm1[:, 0], batch.r_t, batch.discount_t, batch.s_t[:, 0]
    assert (batch.s_tm1[:, 0] // 1000 == batch.a_tm1).all(), "the action is the environment's number"
    return [tuple(map(float, row)) for row in zip(*columns, strict=True)]


def _compare(found: Rows, expected: Rows) -> None:
    assert len(found) == len(expected)
    if found:
        np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-5, atol=1e-5)


@given(STREAMS, st.integers(1, 6))
def test_transitions_are_those_of_whole_episodes(streams: Sequence[Stream], n: int) -> None:
    """Over terminations, truncations, and steps that only reset; an episode that is still open misses its last ones."""
    found = _run(NStep(n, len(streams), SPACES), streams, range(25))
    _compare(found, [row for env, stream in enumerate(streams) for row in _expected(stream, n, env)])


@given(STREAMS, st.integers(2, 6), st.integers(0, 25))
def test_a_window_that_is_saved_and_restored_elsewhere_changes_nothing(
    streams: Sequence[Stream], n: int, when: int
) -> None:
    """The environments are dealt out anew: the second half runs in the opposite order of places."""
    first = NStep(n, len(streams), SPACES)
    found = _run(first, streams, range(when))
    saved = [first.window(env) for env in range(len(streams))]
    second = NStep(n, len(streams), SPACES)
    for env, window in enumerate(saved):
        second.restore(env, window)
    found += _run(second, streams, range(when, 25))
    _compare(found, [row for env, stream in enumerate(streams) for row in _expected(stream, n, env)])


@given(STREAMS, st.integers(2, 6))
def test_a_cut_is_a_truncation(streams: Sequence[Stream], n: int) -> None:
    """No step is lost, and the window is empty afterwards."""
    whole = [[Step(0.5, False, False)] * 3 + [step for step in stream if step] for stream in streams]
    longest = max(map(len, whole))
    windows = NStep(n, len(whole), SPACES)
    found = _run(windows, whole, range(longest))
    observation = np.array([[_observation(env, len(stream))] for env, stream in enumerate(whole)], np.float32)
    found += _rows(windows.cut(observation))
    cut = [[*stream[:-1], stream[-1]._replace(truncated=True)] for stream in whole]
    _compare(found, [row for env, stream in enumerate(cut) for row in _expected(stream, n, env)])
    assert all(windows.window(env) is None for env in range(len(whole)))


def test_three_steps_by_hand() -> None:
    """Rewards 1, 2, 4 and a termination: 1 + 0.9 * 2 + 0.81 * 4, then 2 + 0.9 * 4, then 4."""
    found = _run(NStep(3, 1, SPACES), [[Step(1, False, False), Step(2, False, False), Step(4, True, False)]], range(3))
    expected = [(0, 1 + 0.9 * 2 + 0.81 * 4, 0, 3), (1, 2 + 0.9 * 4, 0, 3), (2, 4, 0, 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"s_tm1": 1},
        {"s_tm1": np.zeros((9, 1)), "a_tm1": np.zeros(9), "r_t": np.zeros(9), "discount_t": np.zeros(9)},
        {"s_tm1": np.zeros((1, 2)), "a_tm1": np.zeros(1), "r_t": np.zeros(1), "discount_t": np.zeros(1)},
    ],
)
def test_what_is_no_window_is_refused(window: dict[str, object]) -> None:
    with pytest.raises(UserError, match="the last steps of an open episode"):
        NStep(3, 1, SPACES).restore(0, window)
