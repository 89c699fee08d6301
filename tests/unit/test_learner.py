"""Laws of all learners: shares, K updates in a call, finite checks, state; against an eager Keras reading of DQN."""

from __future__ import annotations

import functools
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.learner.graph_network import GraphNetwork
from hvd_dqn.learner.learner import Learner, load_state, state_of
from hvd_dqn.shares import first_index, share
from hvd_dqn.transition import Transition

from .agents import (
    FLAGS,
    PLAIN_RULE,
    Exchange,
    MakeLearner,
    Stretches,
    make_learner,
    make_mixed_learner,
    make_numpy_learner,
    random_batches,
    small_mlp,
)

LEARNERS = {"graph": make_learner, "numpy": make_numpy_learner, "mixed": make_mixed_learner}
all_learners = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in LEARNERS.items()])


def _slice(batches: Transition, first: int, count: int) -> Transition:
    return Transition(*(column[:, first : first + count] for column in batches))


def _with_distinct_target(learner: Any) -> Any:
    learner.load_target(np.array(learner.target) + np.float32(0.1))
    return learner


def _captured_gradient(make: MakeLearner, batches: Transition, global_batch_size: int, **changes: Any) -> np.ndarray:
    exchange = Exchange()
    learner = make(small_mlp(), batches.a_tm1.shape[1], exchange, global_batch_size=global_batch_size, **changes)
    _with_distinct_target(learner).learn(batches, FLAGS)
    return exchange.gradient()


@all_learners
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_shares_sum_to_the_full_batch_gradient(make: MakeLearner, size: int) -> None:
    """Two halves of 128, and 43 + 43 + 42 of it: the allreduce's sum is the gradient of the mean over all 128."""
    batches = random_batches(1, 128)
    settings = {"double_dqn": True, "loss": "huber"}
    full = _captured_gradient(make, batches, 128, **settings)
    parts = [
        _captured_gradient(make, _slice(batches, first_index(128, r, size), share(128, r, size)), 128, **settings)
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


@all_learners
@pytest.mark.parametrize(("double_dqn", "loss"), [(True, "huber"), (False, "mse")])
def test_gradient_equals_an_eager_keras_implementation(make: MakeLearner, double_dqn: bool, loss: str) -> None:
    batches = random_batches(1, 12)
    expected = _eager_gradient(batches, double_dqn=double_dqn, loss=loss)
    actual = _captured_gradient(make, batches, 12, double_dqn=double_dqn, loss=loss)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@all_learners
def test_an_update_costs_exactly_one_exchange(make: MakeLearner) -> None:
    exchange = Exchange()
    make(small_mlp(), 4, exchange).learn(random_batches(5, 4), FLAGS)
    assert len(exchange.sent) == 5
    assert all(vector.dtype == np.float32 and vector.ndim == 1 for vector in exchange.sent)


@all_learners
def test_k_updates_in_one_call_equal_k_single_calls(make: MakeLearner) -> None:
    batches = random_batches(5, 8)
    together, apart = (
        _with_distinct_target(make(small_mlp(), 8, optimizer="adam", learning_rate=0.01)) for _ in range(2)
    )
    whole = together.learn(batches, FLAGS)
    singles = [apart.learn(Transition(*(column[k : k + 1] for column in batches)), FLAGS) for k in range(5)]
    assert together.step == apart.step == whole.steps == 5
    assert whole.loss == pytest.approx(np.mean([single.loss for single in singles]), rel=1e-5)
    for name, vector in state_of(apart).items():
        np.testing.assert_allclose(state_of(together)[name], vector, rtol=1e-5, atol=1e-7, err_msg=name)


def test_compiled_and_plain_graphs_agree() -> None:
    batches = random_batches(3, 8)
    settings: dict[str, Any] = {"optimizer": "adam", "loss": "huber", "double_dqn": True, "max_grad_norm": 1.0}
    xla = _with_distinct_target(make_learner(small_mlp(), 8, **settings, jit_compile=True))
    plain = _with_distinct_target(make_learner(small_mlp(), 8, **settings, jit_compile=False))
    left, right = xla.learn(batches, FLAGS), plain.learn(batches, FLAGS)
    assert left[:3] == right[:3] == (3, True, True)
    assert left[3:6] == pytest.approx(right[3:6], rel=1e-4)
    for name, vector in state_of(plain).items():
        np.testing.assert_allclose(state_of(xla)[name], vector, rtol=1e-3, atol=1e-5, err_msg=name)


@all_learners
def test_the_target_network_stays_while_the_online_network_learns(make: MakeLearner) -> None:
    learner = make(small_mlp(), 8)
    before = state_of(learner)
    np.testing.assert_array_equal(before["online"], before["target"])
    learner.learn(random_batches(3, 8), FLAGS)
    assert (np.array(learner.online) != before["online"]).any()
    np.testing.assert_array_equal(learner.target, before["target"])


@all_learners
def test_double_dqn_changes_the_update_only_where_the_networks_disagree(make: MakeLearner) -> None:
    batches = random_batches(1, 16)
    ends = []
    for double_dqn in (False, True):
        for distinct in (False, True):
            learner = make(small_mlp(), 16, double_dqn=double_dqn)
            if distinct:
                learner.load_target(-np.array(learner.target))
            learner.learn(batches, FLAGS)
            ends.append(np.array(learner.online))
    np.testing.assert_allclose(ends[0], ends[2], rtol=1e-6)
    assert np.abs(ends[1] - ends[3]).max() > 1e-4


@all_learners
def test_flags_come_back_summed_over_the_ranks(make: MakeLearner) -> None:
    """Three ranks that send the same: every flag comes back threefold."""
    learner = make(small_mlp(), 4, Exchange(lambda vector: 3 * vector))
    report = learner.learn(random_batches(4, 4), np.array([1.0, 2.5], np.float32))
    np.testing.assert_array_equal(report.flags, [3.0, 7.5])


@functools.cache
def _fresh_learner(make: Any) -> Learner:
    """Returns a learner that the test below leaves as it found it."""
    compiled: dict[str, Any] = {"jit_compile": True} if make is make_learner else {}
    return make(small_mlp(), 4, optimizer="adam", **compiled)


@all_learners
@pytest.mark.parametrize("column", ["s_tm1", "r_t", "s_t"])
def test_a_nan_in_a_batch_is_reported_and_not_applied(make: Any, column: str) -> None:
    """On the paths that MLPs take: TensorFlow's own fused ReLU turns a NaN of s_t into 0 on the CPU."""
    if make is make_mixed_learner and column == "s_t":
        pytest.skip("TensorFlow's fused ReLU; bytes, which images are, hold no NaN, and the collector guards the rest")
    batches = random_batches(1, 4)
    getattr(batches, column)[0, 1] = np.nan
    batches.terminated[:] = False
    learner = _fresh_learner(make)
    before = state_of(learner)
    report = learner.learn(batches, np.array([1.0, 0.0], np.float32))
    assert not report.finite
    assert not report.local_finite
    assert report.steps == learner.step == 0
    np.testing.assert_array_equal(report.flags, [1.0, 0.0])
    for name, vector in state_of(learner).items():
        np.testing.assert_array_equal(vector, before[name], err_msg=name)


@all_learners
def test_updates_after_a_nan_are_not_applied(make: MakeLearner) -> None:
    batches = random_batches(4, 4)
    batches.r_t[1, 2] = np.inf
    learner, reference = make(small_mlp(), 4), make(small_mlp(), 4)
    report = learner.learn(batches, FLAGS)
    expected = reference.learn(Transition(*(column[:1] for column in batches)), FLAGS)
    assert report.steps == learner.step == 1
    assert not report.finite
    assert report.loss == pytest.approx(expected.loss)
    np.testing.assert_array_equal(learner.online, reference.online)


@all_learners
def test_another_ranks_nan_stops_this_rank_which_knows_itself_innocent(make: MakeLearner) -> None:
    """The second sum of three is poisoned: the first is applied, the third is not."""
    exchange = Exchange(lambda vector: vector * np.float32(np.nan if len(exchange.sent) == 2 else 1.0))
    batches = random_batches(3, 4)
    learner, reference = make(small_mlp(), 4, exchange), make(small_mlp(), 4)
    report = learner.learn(batches, FLAGS)
    reference.learn(Transition(*(column[:1] for column in batches)), FLAGS)
    assert (report.steps, report.finite, report.local_finite) == (1, False, True)
    np.testing.assert_array_equal(learner.online, reference.online)


@all_learners
def test_only_the_first_gradient_that_is_not_finite_is_judged(make: MakeLearner) -> None:
    """Another rank's is the second of three and this rank's the third, which may yet be tried again."""
    exchange = Exchange(lambda vector: vector * np.float32(np.nan if len(exchange.sent) == 2 else 1.0))
    batches = random_batches(3, 4)
    batches.r_t[2, 0] = np.inf
    report = make(small_mlp(), 4, exchange).learn(batches, FLAGS)
    assert (report.steps, report.finite, report.local_finite) == (1, False, True)


@all_learners
def test_a_report_can_travel_as_json(make: MakeLearner) -> None:
    """The rank's verdict on its gradient is gathered as JSON when a run ends on a NaN."""
    report = make(small_mlp(), 4).learn(random_batches(1, 4), FLAGS)
    assert json.loads(json.dumps(report[:-1])) == list(report[:-1])


@all_learners
def test_clipping_bounds_the_step_and_keeps_its_direction(make: MakeLearner) -> None:
    batches = random_batches(1, 8)
    steps = {}
    for max_norm in (0.0, 0.05, 1e6):
        learner = make(small_mlp(), 8, learning_rate=1.0, max_grad_norm=max_norm)
        before = np.array(learner.online)
        learner.learn(batches, FLAGS)
        steps[max_norm] = np.array(learner.online) - before
    length = np.linalg.norm(steps[0.0])
    assert length > 0.1
    np.testing.assert_allclose(steps[1e6], steps[0.0], rtol=1e-6)
    np.testing.assert_allclose(steps[0.05], steps[0.0] * (0.05 / length), rtol=1e-3, atol=1e-6)


@all_learners
def test_clipping_looks_at_the_global_gradient(make: MakeLearner) -> None:
    """A long part of a short sum is applied whole, and a short part of a long sum is cut."""
    for factor in (0.0, 0.01, 100.0):
        exchange = Exchange(functools.partial(np.multiply, np.float32(factor)))
        learner = make(small_mlp(), 8, exchange, learning_rate=1.0, max_grad_norm=0.5)
        before = np.array(learner.online)
        learner.learn(random_batches(1, 8), FLAGS)
        own = np.linalg.norm(exchange.gradient())
        assert own > 0.5 > 0.01 * own
        step = np.linalg.norm(np.array(learner.online) - before)
        assert step == pytest.approx(min(0.5, factor * own), rel=1e-3, abs=1e-6)


@all_learners
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_state_goes_there_and_back(make: MakeLearner, optimizer: str) -> None:
    batches = random_batches(3, 4)
    first = make(small_mlp(0), 4, optimizer=optimizer)
    first.learn(batches, FLAGS)
    state, step = state_of(first), first.step
    assert all(vector.dtype == np.float32 and vector.shape == (first.layout.total,) for vector in state.values())
    second = make(small_mlp(1), 4, optimizer=optimizer)
    load_state(second, state, step)
    first.learn(batches, FLAGS)
    second.learn(batches, FLAGS)
    assert second.step == 6
    for name, vector in state_of(first).items():
        np.testing.assert_array_equal(state_of(second)[name], vector, err_msg=name)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_a_state_of_one_learner_is_a_state_of_the_other(optimizer: str) -> None:
    """A run may be resumed with another --backend: names, shapes and kinds are the same."""
    graph, fast = (make(small_mlp(), 4, optimizer=optimizer) for make in (make_learner, make_numpy_learner))
    graph.learn(random_batches(2, 4), FLAGS)
    load_state(fast, state_of(graph), graph.step)
    for name, vector in state_of(graph).items():
        np.testing.assert_array_equal(state_of(fast)[name], vector, err_msg=name)
    fast.learn(random_batches(2, 4, seed=1), FLAGS)
    load_state(graph, state_of(fast), fast.step)
    assert state_of(graph).keys() == state_of(fast).keys()
    for name, vector in state_of(fast).items():
        np.testing.assert_array_equal(state_of(graph)[name], vector, err_msg=name)
    assert graph.step == 4


@all_learners
def test_a_learner_keeps_copies_of_what_it_is_given_and_gives_copies(make: MakeLearner) -> None:
    """Neither a later change of a loaded array nor a later update reaches a vector that was kept."""
    learner = make(small_mlp(), 4, optimizer="adam")
    learner.learn(random_batches(2, 4), FLAGS)
    kept = state_of(learner)
    given = {name: vector.copy() for name, vector in kept.items()}
    load_state(learner, given, 2)
    for vector in given.values():
        vector[:] = 7.0
    for name, vector in state_of(learner).items():
        np.testing.assert_array_equal(vector, kept[name], err_msg=name)

    target = np.array(kept["online"])
    learner.load_target(target)
    target[:] = 7.0
    np.testing.assert_array_equal(learner.target, kept["online"])

    learner.load_target(learner.online)
    before = state_of(learner)
    remembered = {name: vector.copy() for name, vector in before.items()}
    learner.learn(random_batches(2, 4), FLAGS)
    for name, vector in state_of(learner).items():
        assert (vector != before[name]).any() == (name != "target"), name
        np.testing.assert_array_equal(before[name], remembered[name], err_msg=name)


@all_learners
def test_a_state_of_another_optimizer_or_network_is_refused(make: MakeLearner) -> None:
    adam = make(small_mlp(), 4, optimizer="adam")
    with pytest.raises(ValueError, match="--optimizer"):
        load_state(adam, state_of(make(small_mlp(), 4, optimizer="sgd")), 0)
    before = np.array(adam.online)
    wider = make(small_mlp(num_actions=5), 4, optimizer="adam")
    with pytest.raises(ValueError, match="do not fit"):
        load_state(adam, state_of(wider), 0)
    np.testing.assert_array_equal(adam.online, before)


@all_learners
def test_a_clock_hears_of_every_phase_once_over(make: MakeLearner) -> None:
    """Phases follow one another without a gap, so that their sum is the whole call."""
    clock = Stretches()
    learner = make(small_mlp(), 4, clock=clock)
    start = time.perf_counter()
    learner.learn(random_batches(2, 4), FLAGS)
    end, heard = time.perf_counter(), clock.heard
    assert {"gradient", "allreduce", "apply"} <= {phase for phase, _, _ in heard}
    for (_, _, one_ends), (_, next_starts, _) in itertools.pairwise(heard):
        assert next_starts == pytest.approx(one_ends, abs=1e-9)
    assert start <= heard[0][1] <= heard[-1][2] <= end + 1e-3  # two clocks in the graph


@all_learners
def test_a_learner_makes_no_file_that_a_kill_would_leave_behind(
    make: MakeLearner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's autograph writes one for each function that it rewrites, and removes it at exit."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = small_mlp()
    passes = GraphNetwork(network, **PLAIN_RULE)
    passes.action_values(tf.constant(passes.layout.flatten_variables(network)), np.zeros((5, 4), np.float32))
    make(network, 4).learn(random_batches(2, 4), FLAGS)
    assert not list(tmp_path.iterdir())


def test_action_values_are_those_of_the_parameters_given() -> None:
    network, other = small_mlp(0), small_mlp(1)
    passes = GraphNetwork(network, **PLAIN_RULE)
    s = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(passes.action_values(passes.layout.flatten_variables(network), s), network(s), rtol=1e-5)
    parameters = tf.constant(passes.layout.flatten_variables(other))
    np.testing.assert_allclose(passes.action_values(parameters, s), other(s), rtol=1e-5)
