"""The real TensorFlowLearner on a one-hot linear network is tabular Q-learning; every number fits on paper."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from hvd_dqn.learner.learner import load_state
from hvd_dqn.learner.tensorflow import TensorFlowLearner
from hvd_dqn.transition import Transition

from .learners import learn, make_learner, table_batch, tabular_network

ALPHA = 0.1
TABLE = np.array([[5.0, 8.0, 2.0, 6.0], [1.0, 10.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
OTHER = np.array([[0.0, 0.0, 0.0, 0.0], [7.0, 2.0, 20.0, 5.0], [0.0, 0.0, 0.0, 0.0]], np.float32)


@functools.cache
def _learner(double: bool = False) -> TensorFlowLearner:
    """Squared loss, whose gradient is -2 td, with the learning rate alpha / 2: the tabular rule with alpha."""
    return make_learner(tabular_network(3, 4), 1, learning_rate=ALPHA / 2, double=double)


def _after(batch: Transition, *, target: np.ndarray = TABLE, double: bool = False) -> np.ndarray:
    """Returns the Q table that one update makes of TABLE."""
    learner = _learner(double)
    load_state(learner, {"online": TABLE.ravel(), "target": target.ravel()}, 0)
    learn(learner, batch)
    return learner.online.numpy().reshape(TABLE.shape)


def _table_with(value: float) -> np.ndarray:
    """Returns TABLE with the taken pair's value replaced and all others bitwise alone."""
    table = TABLE.copy()
    table[0, 3] = value
    return table


def test_update_is_q_plus_alpha_times_td_error() -> None:
    """Q = 6, r = 1, max Q' = 10: target 1 + 0.9 * 10 = 10, Q becomes 6 + 0.1 * (10 - 6) = 6.4."""
    np.testing.assert_allclose(_after(table_batch(0, 3, 1.0, 1)), _table_with(6.4), rtol=1e-6)


def test_a_discount_of_zero_does_not_bootstrap() -> None:
    """Target 1: 6 + 0.1 * (1 - 6) = 5.5."""
    np.testing.assert_allclose(_after(table_batch(0, 3, 1.0, 1, discount=0.0)), _table_with(5.5), rtol=1e-6)


def test_dqn_bootstraps_from_the_target_networks_maximum() -> None:
    """Target network's row (7, 2, 20, 5): 1 + 0.9 * 20 = 19, 6 + 0.1 * 13 = 7.3."""
    np.testing.assert_allclose(_after(table_batch(0, 3, 1.0, 1), target=OTHER), _table_with(7.3), rtol=1e-6)


def test_double_dqn_bootstraps_from_the_target_networks_value_of_the_online_choice() -> None:
    """Online prefers action 1, which the target network values 2: 1 + 0.9 * 2 = 2.8, 6 + 0.1 * -3.2 = 5.68."""
    after = _after(table_batch(0, 3, 1.0, 1), target=OTHER, double=True)
    np.testing.assert_allclose(after, _table_with(5.68), rtol=1e-6)


@pytest.mark.parametrize("double", [False, True])
def test_nothing_flows_into_the_target(double: bool) -> None:
    """The next state's row and the untaken actions stay bitwise alone, and so does a state that is its own successor.

    From state 0 to state 0 by its best action: 8 + 0.1 * (1 + 0.9 * 8 - 8) = 8.02; a gradient through the target
    would scale the change by (1 - 0.9).
    """
    after = _after(table_batch(0, 3, 1.0, 1), double=double)
    assert (after != TABLE).sum() == 1
    loop = _after(table_batch(0, 1, 1.0, 0), double=double)
    assert loop[0, 1] == pytest.approx(8.02)
    assert (loop != TABLE).sum() == 1


def test_report_tells_loss_priority_and_q_of_the_action_taken() -> None:
    """Td error 10 - 6 = 4: squared loss 16, |td| 4, Q 6."""
    learner = _learner()
    load_state(learner, {"online": TABLE.ravel(), "target": TABLE.ravel()}, 0)
    report = learn(learner, table_batch(0, 3, 1.0, 1))
    assert (report.loss, report.priority, report.mean_q) == pytest.approx((16.0, 4.0, 6.0))


def test_report_averages_over_the_updates_of_a_call() -> None:
    """Two terminal updates towards 1: td -5 then 5.5 -> 1, td -4.5: |td| mean 4.75, loss (25 + 20.25) / 2."""
    learner = _learner()
    load_state(learner, {"online": TABLE.ravel(), "target": TABLE.ravel()}, 0)
    one = table_batch(0, 3, 1.0, 1, discount=0.0)
    report = learn(learner, Transition(*(np.concatenate([column, column]) for column in one)))
    assert report.steps == 2
    assert (report.loss, report.priority, report.mean_q) == pytest.approx((22.625, 4.75, 5.75))


def test_repeated_updates_reach_the_fixed_point() -> None:
    """A two-state chain, r = 0 then 100 at the end: Q* = 90, 100 at gamma 0.9."""
    learner = make_learner(tabular_network(2, 1), 2, learning_rate=0.5)
    table = np.zeros(2, np.float32)
    load_state(learner, {"online": table, "target": table}, 0)
    chain = Transition(
        s_tm1=np.array([[0, 1]], np.int32),
        a_tm1=np.zeros((1, 2), np.int32),
        r_t=np.array([[0.0, 100.0]], np.float32),
        discount_t=np.array([[0.9, 0.0]], np.float32),
        s_t=np.array([[1, 0]], np.int32),
    )
    for _ in range(60):
        learn(learner, chain)
        learner.target = learner.online
    np.testing.assert_allclose(learner.online, [90.0, 100.0], rtol=1e-5)
