"""Laws of all learners: shares, K updates in a call, finite checks, state; against an eager Keras reading of DQN."""

from __future__ import annotations

import functools
import importlib.util
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

from hvd_dqn.algorithms.base import Batch, Losses
from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.learner.action_values import TensorFlowActionValues
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.gradient import Compilation
from hvd_dqn.learner.learner import Learner, load_state, state_of
from hvd_dqn.shares import first_index, share
from hvd_dqn.transition import Transition

from .learners import (
    SIGNALS,
    Exchange,
    MakeLearner,
    Stretches,
    learn,
    make_learner,
    part_of,
    random_batches,
    small_mlp,
)

LEARNERS: dict[str, MakeLearner] = {"tensorflow": make_learner}
native = importlib.util.find_spec("hvd_dqn.native")
if native is not None and native.origin is not None:
    from .native_learners import LIBRARY, make_native_learner

    if LIBRARY.products_supported():
        LEARNERS["native"] = make_native_learner
all_learners = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in LEARNERS.items()])
XLA = Compilation(jit_compile=True)


def _with_distinct_target(learner: Any) -> Any:
    learner.load_target(np.array(learner.target) + np.float32(0.1))
    return learner


def _captured_gradient(make: MakeLearner, batches: Transition, global_batch_size: int, **changes: Any) -> np.ndarray:
    exchange = Exchange()
    learner = make(small_mlp(), batches.a_tm1.shape[1], exchange, global_batch_size=global_batch_size, **changes)
    learn(_with_distinct_target(learner), batches)
    return exchange.gradient()


@all_learners
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_shares_sum_to_the_full_batch_gradient(make: MakeLearner, size: int) -> None:
    """Two halves of 128, and 43 + 43 + 42 of it: the allreduce's sum is the gradient of the mean over all 128."""
    batches = random_batches(1, 128)
    settings = {"double": True, "loss": "huber"}
    full = _captured_gradient(make, batches, 128, **settings)
    parts = [
        _captured_gradient(make, part_of(batches, first_index(128, r, size), share(128, r, size)), 128, **settings)
        for r in range(size)
    ]
    np.testing.assert_allclose(sum(parts), full, rtol=1e-4, atol=1e-6)
    assert np.abs(parts[0] - full).max() > 1e-3


def _eager_gradient(batches: Transition, *, double: bool, loss: str) -> np.ndarray:
    """Computes the gradient anew from Keras models, one transition at a time."""
    online, target = small_mlp(), small_mlp()
    target.set_weights([w + 0.1 for w in target.get_weights()])
    keras_loss = {"huber": keras.losses.Huber(), "mse": keras.losses.MeanSquaredError()}[loss]
    count = batches.a_tm1.shape[1]
    with tf.GradientTape() as tape:
        total = 0.0
        for s, a, r, discount, s_next in zip(*(column[0] for column in batches), strict=True):
            values = target(s_next[None]).numpy()[0]
            chooser = online(s_next[None]).numpy()[0] if double else values
            goal = r + discount * values[chooser.argmax()]
            total += keras_loss([goal], [online(s[None])[0, int(a)]]) / count
    gradients = tape.gradient(total, [v.value for v in online.trainable_variables])
    return np.concatenate([np.ravel(g) for g in gradients])


@all_learners
@pytest.mark.parametrize(("double", "loss"), [(True, "huber"), (False, "mse")])
def test_gradient_equals_an_eager_keras_implementation(make: MakeLearner, double: bool, loss: str) -> None:
    batches = random_batches(1, 12)
    expected = _eager_gradient(batches, double=double, loss=loss)
    actual = _captured_gradient(make, batches, 12, double=double, loss=loss)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@all_learners
def test_an_update_costs_exactly_one_exchange(make: MakeLearner) -> None:
    exchange = Exchange()
    learn(make(small_mlp(), 4, exchange), random_batches(5, 4))
    assert len(exchange.sent) == 5
    assert all(vector.dtype == np.float32 and vector.ndim == 1 for vector in exchange.sent)


@all_learners
def test_k_updates_in_one_call_equal_k_single_calls(make: MakeLearner) -> None:
    batches = random_batches(5, 8)
    together, apart = (
        _with_distinct_target(make(small_mlp(), 8, optimizer="adam", learning_rate=0.01)) for _ in range(2)
    )
    whole = learn(together, batches)
    singles = [learn(apart, Transition(*(column[k : k + 1] for column in batches))) for k in range(5)]
    assert together.step == apart.step == whole.steps == 5
    assert whole.loss == pytest.approx(np.mean([single.loss for single in singles]), rel=1e-5)
    for name, vector in state_of(apart).items():
        np.testing.assert_allclose(state_of(together)[name], vector, rtol=1e-5, atol=1e-7, err_msg=name)


def test_compiled_and_plain_graphs_agree() -> None:
    batches = random_batches(3, 8)
    settings: dict[str, Any] = {"optimizer": "adam", "loss": "huber", "double": True, "max_grad_norm": 1.0}
    xla = _with_distinct_target(make_learner(small_mlp(), 8, **settings, compilation=XLA))
    plain = _with_distinct_target(make_learner(small_mlp(), 8, **settings))
    left, right = learn(xla, batches), learn(plain, batches)
    assert left[:3] == right[:3] == (3, True, True)
    assert left[3:6] == pytest.approx(right[3:6], rel=1e-4)
    for name, vector in state_of(plain).items():
        np.testing.assert_allclose(state_of(xla)[name], vector, rtol=1e-3, atol=1e-5, err_msg=name)


@all_learners
def test_the_target_network_stays_while_the_online_network_learns(make: MakeLearner) -> None:
    learner = make(small_mlp(), 8)
    before = state_of(learner)
    np.testing.assert_array_equal(before["online"], before["target"])
    learn(learner, random_batches(3, 8))
    assert (np.array(learner.online) != before["online"]).any()
    np.testing.assert_array_equal(learner.target, before["target"])


@all_learners
def test_double_dqn_changes_the_update_only_where_the_networks_disagree(make: MakeLearner) -> None:
    batches = random_batches(1, 16)
    ends = []
    for double in (False, True):
        for distinct in (False, True):
            learner = make(small_mlp(), 16, double=double)
            if distinct:
                learner.load_target(-np.array(learner.target))
            learn(learner, batches)
            ends.append(np.array(learner.online))
    np.testing.assert_allclose(ends[0], ends[2], rtol=1e-6)
    assert np.abs(ends[1] - ends[3]).max() > 1e-4


@all_learners
def test_flags_come_back_summed_over_the_ranks(make: MakeLearner) -> None:
    """Three ranks that send the same: every flag comes back threefold."""
    learner = make(small_mlp(), 4, Exchange(lambda vector: 3 * vector))
    report = learn(learner, random_batches(4, 4), np.array([1.0, 2.5], np.float32))
    np.testing.assert_array_equal(report.signals, [3.0, 7.5])


@functools.cache
def _fresh_learner(make: Any) -> Learner:
    """Returns a learner that the test below leaves as it found it."""
    compiled: dict[str, Any] = {"compilation": XLA} if make is make_learner else {}
    return make(small_mlp(), 4, optimizer="adam", **compiled)


@all_learners
@pytest.mark.parametrize("column", ["s_tm1", "r_t", "s_t"])
def test_a_nan_in_a_batch_is_reported_and_not_applied(make: Any, column: str) -> None:
    """On the paths that MLPs take: TensorFlow's own fused ReLU turns a NaN of s_t into 0 on the CPU."""
    batches = random_batches(1, 4)
    getattr(batches, column)[0, 1] = np.nan
    batches.discount_t[:] = 0.9
    learner = _fresh_learner(make)
    before = state_of(learner)
    report = learn(learner, batches, np.array([1.0, 0.0], np.float32))
    assert not report.finite
    assert not report.local_finite
    assert report.steps == learner.step == 0
    np.testing.assert_array_equal(report.signals, [1.0, 0.0])
    for name, vector in state_of(learner).items():
        np.testing.assert_array_equal(vector, before[name], err_msg=name)


@all_learners
def test_updates_after_a_nan_are_not_applied(make: MakeLearner) -> None:
    batches = random_batches(4, 4)
    batches.r_t[1, 2] = np.inf
    learner, reference = make(small_mlp(), 4), make(small_mlp(), 4)
    report = learn(learner, batches)
    expected = learn(reference, Transition(*(column[:1] for column in batches)))
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
    report = learn(learner, batches)
    learn(reference, Transition(*(column[:1] for column in batches)))
    assert (report.steps, report.finite, report.local_finite) == (1, False, True)
    np.testing.assert_array_equal(learner.online, reference.online)


@all_learners
def test_only_the_first_gradient_that_is_not_finite_is_judged(make: MakeLearner) -> None:
    """Another rank's is the second of three and this rank's the third, which may yet be tried again."""
    exchange = Exchange(lambda vector: vector * np.float32(np.nan if len(exchange.sent) == 2 else 1.0))
    batches = random_batches(3, 4)
    batches.r_t[2, 0] = np.inf
    report = learn(make(small_mlp(), 4, exchange), batches)
    assert (report.steps, report.finite, report.local_finite) == (1, False, True)


@all_learners
def test_a_report_can_travel_as_json(make: MakeLearner) -> None:
    """The rank's verdict on its gradient is gathered as JSON when a run ends on a NaN."""
    report = learn(make(small_mlp(), 4), random_batches(1, 4))
    assert json.loads(json.dumps(report[:6])) == list(report[:6])


@all_learners
def test_the_learning_rate_may_change_between_calls(make: MakeLearner) -> None:
    """As if the learner had been made with it."""
    batches, ways = random_batches(1, 8), {}
    for first, then in ((0.1, 0.1), (0.1, 0.05), (0.05, 0.05)):
        learner = make(small_mlp(), 8, learning_rate=first)
        learner.learning_rate = then
        before = np.array(learner.online)
        learn(learner, batches)
        ways[first, then] = np.array(learner.online) - before
    np.testing.assert_array_equal(ways[0.1, 0.05], ways[0.05, 0.05])
    np.testing.assert_allclose(ways[0.1, 0.1], 2 * ways[0.05, 0.05], rtol=1e-3, atol=1e-7)


@all_learners
def test_clipping_bounds_the_step_and_keeps_its_direction(make: MakeLearner) -> None:
    batches = random_batches(1, 8)
    steps = {}
    for max_norm in (0.0, 0.05, 1e6):
        learner = make(small_mlp(), 8, learning_rate=1.0, max_grad_norm=max_norm)
        before = np.array(learner.online)
        learn(learner, batches)
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
        learn(learner, random_batches(1, 8))
        own = np.linalg.norm(exchange.gradient())
        assert own > 0.5 > 0.01 * own
        step = np.linalg.norm(np.array(learner.online) - before)
        assert step == pytest.approx(min(0.5, factor * own), rel=1e-3, abs=1e-6)


@all_learners
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_state_goes_there_and_back(make: MakeLearner, optimizer: str) -> None:
    batches = random_batches(3, 4)
    first = make(small_mlp(0), 4, optimizer=optimizer)
    learn(first, batches)
    state, step = state_of(first), first.step
    assert all(vector.dtype == np.float32 and vector.shape == (first.layout.total,) for vector in state.values())
    second = make(small_mlp(1), 4, optimizer=optimizer)
    load_state(second, state, step)
    learn(first, batches)
    learn(second, batches)
    assert second.step == 6
    for name, vector in state_of(first).items():
        np.testing.assert_array_equal(state_of(second)[name], vector, err_msg=name)


@all_learners
def test_a_learner_keeps_copies_of_what_it_is_given_and_gives_copies(make: MakeLearner) -> None:
    """Neither a later change of a loaded array nor a later update reaches a vector that was kept."""
    learner = make(small_mlp(), 4, optimizer="adam")
    learn(learner, random_batches(2, 4))
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
    learn(learner, random_batches(2, 4))
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
    learn(learner, random_batches(2, 4))
    end, heard = time.perf_counter(), clock.heard
    assert {"transfer", "gradient", "allreduce"} <= {phase for phase, _, _ in heard}
    for (_, _, one_ends), (_, next_starts, _) in itertools.pairwise(heard):
        assert next_starts == pytest.approx(one_ends, abs=1e-9)
    assert start <= heard[0][1] <= heard[-1][2] <= end + 1e-3  # two clocks in the graph


@all_learners
def test_a_learner_makes_no_file_that_a_kill_would_leave_behind(
    make: MakeLearner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's autograph writes one for each function that it rewrites, and removes it at exit."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _acting(small_mlp())(np.zeros((5, 4), np.float32))
    learn(make(small_mlp(), 4), random_batches(2, 4))
    assert not list(tmp_path.iterdir())


def _acting(network: keras.Model) -> TensorFlowActionValues:
    flat = FlatNetwork(network)
    return TensorFlowActionValues(flat, DQN("mse", False), flat.initial_parameters())


def test_action_values_are_those_of_the_parameters_loaded_last() -> None:
    network, other = small_mlp(0), small_mlp(1)
    values = _acting(network)
    s = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(values(s), network(s), rtol=1e-5, atol=1e-6)
    values.load(FlatNetwork(other).initial_parameters())
    np.testing.assert_allclose(values(s), other(s), rtol=1e-5, atol=1e-6)


@all_learners
def test_a_weight_scales_a_transitions_loss_and_gradient_and_not_its_priority(make: MakeLearner) -> None:
    """Weights of 0 and 2 of two transitions: twice the second one's gradient alone."""
    both, second = random_batches(1, 2), part_of(random_batches(1, 2), 1, 1)
    vectors, reports = [], []
    for batches, weights in ((both, [[0.0, 2.0]]), (second, [[1.0]])):
        exchange = Exchange()
        learner = make(small_mlp(), len(weights[0]), exchange, global_batch_size=2)
        reports.append(learner.learn(batches, np.array(weights, np.float32), SIGNALS))
        vectors.append(exchange.gradient())
    np.testing.assert_allclose(vectors[0], 2 * vectors[1], rtol=1e-5, atol=1e-7)
    assert np.abs(vectors[1]).max() > 1e-3
    assert reports[0].loss == pytest.approx(2 * reports[1].loss, rel=1e-5)
    assert reports[0].priorities[0, 1] == pytest.approx(reports[1].priorities[0, 0], rel=1e-5)
    assert reports[0].priority == pytest.approx(reports[0].priorities.sum() / 2, rel=1e-5)


@all_learners
def test_a_report_has_the_td_error_of_every_transition_at_its_own_update(make: MakeLearner) -> None:
    """|td| by Keras, of the first update; the second one's parameters are others."""
    batches, network = random_batches(2, 8), small_mlp()
    report = learn(make(small_mlp(), 8), batches)
    assert (report.priorities.shape, report.priorities.dtype) == ((2, 8), np.float32)
    td_errors = []
    for k in range(2):
        targets = batches.r_t[k] + batches.discount_t[k] * network(batches.s_t[k]).numpy().max(axis=1)
        td_errors.append(targets - network(batches.s_tm1[k]).numpy()[np.arange(8), batches.a_tm1[k]])
    np.testing.assert_allclose(report.priorities[0], np.abs(td_errors[0]), rtol=1e-4, atol=1e-5)
    assert np.abs(report.priorities[1] - np.abs(td_errors[1])).max() > 1e-3


class _FirstOutputAlone:
    """An algorithm that leaves one of its network's layers out, on actions of two joints."""

    outputs_per_action = 1
    takes_fractions = False
    takes_joints = True
    has_value_range = False
    native_rule: str | None = None

    def action_values(self, outputs: Any) -> tf.Tensor:
        return outputs[0]

    def loss(self, online: Any, target: Any, batch: Batch, noise: Any) -> Losses:
        assert batch.a_tm1.shape == (3, 2)
        q = tf.reduce_sum(online(batch.s_tm1)[0], axis=1)  # [B]
        return Losses(tf.square(q), tf.abs(q), q)


def test_a_layer_that_the_loss_does_not_use_stays_as_it_is() -> None:
    """A network with two outputs, of which the algorithm looks at one; an action has two parts."""
    s = keras.Input((4,))
    network = keras.Model(s, [keras.layers.Dense(3, use_bias=False)(s), keras.layers.Dense(2, use_bias=False)(s)])
    learner = make_learner(network, 3, algorithm=_FirstOutputAlone(), action_shape=(2,))
    before = np.array(learner.online)
    learn(learner, random_batches(2, 3)._replace(a_tm1=np.zeros((2, 3, 2), np.int32)))
    moved = np.array(learner.online) != before
    assert moved[:12].all()
    assert not moved[12:].any()
