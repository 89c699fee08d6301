"""Laws of the learner: shares, K updates in a call, finite checks, state; against an eager Keras reading of DQN."""

from __future__ import annotations

import functools
import json
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.agent.graph_learner import GraphLearner
from hvd_dqn.agent.learner import load_state, state_of
from hvd_dqn.maths.shares import first_index, share
from hvd_dqn.transition import Transition

from .agents import FLAGS, Capture, make_learner, random_batches, small_mlp


def _slice(batches: Transition, first: int, count: int) -> Transition:
    return Transition(*(column[:, first : first + count] for column in batches))


def _with_distinct_target(learner: GraphLearner) -> GraphLearner:
    learner.target = learner.target + 0.1
    return learner


def _captured_gradient(batches: Transition, global_batch_size: int, **changes: Any) -> np.ndarray:
    capture = Capture()
    size = batches.a_tm1.shape[1]
    learner = make_learner(
        small_mlp(),
        size,
        global_batch_size=global_batch_size,
        allreduce_sum=capture,
        **changes,
    )
    _with_distinct_target(learner).learn(batches, FLAGS)
    return capture.gradient()


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_shares_sum_to_the_full_batch_gradient(size: int) -> None:
    """Two halves of 128, and 43 + 43 + 42 of it: the allreduce's sum is the gradient of the mean over all 128."""
    batches = random_batches(1, 128)
    settings = {"double_dqn": True, "loss": "huber"}
    full = _captured_gradient(batches, 128, **settings)
    parts = [
        _captured_gradient(_slice(batches, first_index(128, r, size), share(128, r, size)), 128, **settings)
        for r in range(size)
    ]
    np.testing.assert_allclose(sum(parts), full, rtol=1e-4, atol=1e-6)
    assert np.abs(parts[0] - full).max() > 1e-3


def _eager_gradient(batches: Transition, *, double_dqn: bool, loss: str) -> np.ndarray:
    """Computes the gradient anew from Keras models, one transition at a time."""
    online, target = small_mlp(), small_mlp()
    target.set_weights([w + 0.1 for w in target.get_weights()])
    keras_loss = {"huber": keras.losses.Huber(), "mse": keras.losses.MeanSquaredError()}[loss]
    count = batches.a_tm1.shape[1]
    with tf.GradientTape() as tape:
        total = 0.0
        for s, a, r, terminated, _, s_next in zip(*(column[0] for column in batches), strict=True):
            values = target(s_next[None]).numpy()[0]
            chooser = online(s_next[None]).numpy()[0] if double_dqn else values
            goal = r + (0.0 if terminated else 0.9 * values[chooser.argmax()])
            total += keras_loss([goal], [online(s[None])[0, int(a)]]) / count
    gradients = tape.gradient(total, [v.value for v in online.trainable_variables])
    return np.concatenate([np.ravel(g) for g in gradients])


@pytest.mark.parametrize(("double_dqn", "loss"), [(True, "huber"), (False, "mse")])
def test_gradient_equals_an_eager_keras_implementation(double_dqn: bool, loss: str) -> None:
    batches = random_batches(1, 12)
    expected = _eager_gradient(batches, double_dqn=double_dqn, loss=loss)
    actual = _captured_gradient(batches, 12, double_dqn=double_dqn, loss=loss)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_an_update_costs_exactly_one_exchange() -> None:
    capture = Capture()
    make_learner(small_mlp(), 4, allreduce_sum=capture).learn(random_batches(5, 4), FLAGS)
    assert len(capture.sent) == 5
    assert all(vector.dtype == np.float32 and vector.ndim == 1 for vector in capture.sent)


def test_k_updates_in_one_call_equal_k_single_calls() -> None:
    batches = random_batches(5, 8)
    together = _with_distinct_target(make_learner(small_mlp(), 8, optimizer="adam", learning_rate=0.01))
    apart = _with_distinct_target(make_learner(small_mlp(), 8, optimizer="adam", learning_rate=0.01))
    whole = together.learn(batches, FLAGS)
    singles = [apart.learn(Transition(*(column[k : k + 1] for column in batches)), FLAGS) for k in range(5)]
    assert together.step == apart.step == whole.steps == 5
    assert whole.loss == pytest.approx(np.mean([single.loss for single in singles]), rel=1e-5)
    for name, vector in state_of(apart).items():
        np.testing.assert_allclose(state_of(together)[name], vector, rtol=1e-5, atol=1e-7, err_msg=name)


def test_compiled_and_plain_graphs_agree() -> None:
    batches = random_batches(3, 8)
    settings = {"optimizer": "adam", "loss": "huber", "double_dqn": True, "max_grad_norm": 1.0}
    xla = _with_distinct_target(make_learner(small_mlp(), 8, **settings, jit_compile=True))
    plain = _with_distinct_target(make_learner(small_mlp(), 8, **settings, jit_compile=False))
    left, right = xla.learn(batches, FLAGS), plain.learn(batches, FLAGS)
    assert left[:3] == right[:3] == (3, True, True)
    assert left[3:6] == pytest.approx(right[3:6], rel=1e-4)
    for name, vector in state_of(plain).items():
        np.testing.assert_allclose(state_of(xla)[name], vector, rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_target_network_stays_while_the_online_network_learns() -> None:
    learner = make_learner(small_mlp(), 8)
    online, target = learner.online.numpy(), learner.target.numpy()
    np.testing.assert_array_equal(online, target)
    learner.learn(random_batches(3, 8), FLAGS)
    assert (learner.online.numpy() != online).any()
    np.testing.assert_array_equal(learner.target.numpy(), target)


def test_double_dqn_changes_the_update_only_where_the_networks_disagree() -> None:
    batches = random_batches(1, 16)
    ends = []
    for double_dqn in (False, True):
        for distinct in (False, True):
            learner = make_learner(small_mlp(), 16, double_dqn=double_dqn)
            if distinct:
                learner.target = -learner.target
            learner.learn(batches, FLAGS)
            ends.append(learner.online.numpy())
    np.testing.assert_allclose(ends[0], ends[2], rtol=1e-6)
    assert np.abs(ends[1] - ends[3]).max() > 1e-4


def test_flags_come_back_summed_over_the_ranks() -> None:
    """Three ranks that send the same: every flag comes back threefold."""
    learner = make_learner(small_mlp(), 4, allreduce_sum=Capture(lambda vector: 3 * vector))
    report = learner.learn(random_batches(4, 4), np.array([1.0, 2.5], np.float32))
    np.testing.assert_array_equal(report.flags, [3.0, 7.5])


@functools.cache
def _compiled_learner() -> GraphLearner:
    return make_learner(small_mlp(), 4, optimizer="adam", jit_compile=True)


@pytest.mark.parametrize("column", ["s_tm1", "r_t", "s_t"])
def test_a_nan_in_a_batch_is_reported_and_not_applied(column: str) -> None:
    """On the compiled path, which MLPs take: TensorFlow's own fused ReLU turns a NaN of s_t into 0 on the CPU."""
    batches = random_batches(1, 4)
    getattr(batches, column)[0, 1] = np.nan
    batches.terminated[:] = False
    learner = _compiled_learner()
    before = state_of(learner)
    report = learner.learn(batches, np.array([1.0, 0.0], np.float32))
    assert not report.finite
    assert not report.local_finite
    assert report.steps == learner.step == 0
    np.testing.assert_array_equal(report.flags, [1.0, 0.0])
    for name, vector in state_of(learner).items():
        np.testing.assert_array_equal(vector, before[name], err_msg=name)


def test_updates_after_a_nan_are_not_applied() -> None:
    batches = random_batches(4, 4)
    batches.r_t[1, 2] = np.inf
    learner, reference = make_learner(small_mlp(), 4), make_learner(small_mlp(), 4)
    report = learner.learn(batches, FLAGS)
    expected = reference.learn(Transition(*(column[:1] for column in batches)), FLAGS)
    assert report.steps == learner.step == 1
    assert not report.finite
    assert report.loss == pytest.approx(expected.loss)
    np.testing.assert_array_equal(learner.online, reference.online)


def test_another_ranks_nan_stops_this_rank_which_knows_itself_innocent() -> None:
    def poison(vector: np.ndarray) -> np.ndarray:
        vector = vector.copy()
        vector[0] = np.nan
        return vector

    learner = make_learner(small_mlp(), 4, allreduce_sum=Capture(poison))
    before = learner.online.numpy()
    report = learner.learn(random_batches(1, 4), FLAGS)
    assert not report.finite
    assert report.local_finite
    np.testing.assert_array_equal(learner.online, before)


def test_a_report_can_travel_as_json() -> None:
    """The rank's verdict on its gradient is gathered as JSON when a run ends on a NaN."""
    report = make_learner(small_mlp(), 4).learn(random_batches(1, 4), FLAGS)
    assert json.loads(json.dumps(report[:-1])) == list(report[:-1])


def test_clipping_bounds_the_step_and_keeps_its_direction() -> None:
    batches = random_batches(1, 8)
    steps = {}
    for max_norm in (0.0, 0.05, 1e6):
        learner = make_learner(small_mlp(), 8, learning_rate=1.0, max_grad_norm=max_norm)
        before = learner.online.numpy()
        learner.learn(batches, FLAGS)
        steps[max_norm] = learner.online.numpy() - before
    length = np.linalg.norm(steps[0.0])
    assert length > 0.1
    np.testing.assert_allclose(steps[1e6], steps[0.0], rtol=1e-6)
    np.testing.assert_allclose(steps[0.05], steps[0.0] * (0.05 / length), rtol=1e-3, atol=1e-6)


def test_clipping_looks_at_the_global_gradient() -> None:
    """Ranks that each clipped their own part could not tell 3 + -3 from 0."""
    learner = make_learner(
        small_mlp(), 8, learning_rate=1.0, max_grad_norm=0.05, allreduce_sum=Capture(lambda vector: 0 * vector)
    )
    before = learner.online.numpy()
    learner.learn(random_batches(1, 8), FLAGS)
    np.testing.assert_array_equal(learner.online, before)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_state_goes_there_and_back(optimizer: str) -> None:
    batches = random_batches(3, 4)
    first = make_learner(small_mlp(0), 4, optimizer=optimizer)
    first.learn(batches, FLAGS)
    state, step = state_of(first), first.step
    assert all(vector.dtype == np.float32 and vector.shape == (first.layout.total,) for vector in state.values())
    second = make_learner(small_mlp(1), 4, optimizer=optimizer)
    load_state(second, state, step)
    first.learn(batches, FLAGS)
    second.learn(batches, FLAGS)
    assert second.step == 6
    for name, vector in state_of(first).items():
        np.testing.assert_array_equal(state_of(second)[name], vector, err_msg=name)


def test_a_state_of_another_optimizer_or_network_is_refused() -> None:
    adam = make_learner(small_mlp(), 4, optimizer="adam")
    with pytest.raises(ValueError, match="--optimizer"):
        load_state(adam, state_of(make_learner(small_mlp(), 4, optimizer="sgd")), 0)
    before = adam.online.numpy()
    wider = make_learner(small_mlp(num_actions=5), 4, optimizer="adam")
    with pytest.raises(ValueError, match="do not fit"):
        load_state(adam, state_of(wider), 0)
    np.testing.assert_array_equal(adam.online, before)


def test_action_values_are_those_of_the_parameters_given() -> None:
    network, other = small_mlp(0), small_mlp(1)
    learner = make_learner(network, 4)
    s = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(learner.action_values(learner.online, s), network(s), rtol=1e-5)
    parameters = tf.constant(learner.layout.flatten_variables(other))
    np.testing.assert_allclose(learner.action_values(parameters, s), other(s), rtol=1e-5)
