"""The fast path's law: NumPy's updates are TensorFlow's updates, alone and as one of several ranks."""

from __future__ import annotations

import functools
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.distributed.communicator import Produce, Rounds
from hvd_dqn.learner.action_values import make_action_values
from hvd_dqn.learner.graph_network import GraphNetwork
from hvd_dqn.learner.learner import NUM_STATISTICS, LearnReport, load_state, state_of
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.learner.tensorflow import GraphLearner
from hvd_dqn.native.compiled_mlp import CompiledMLP
from hvd_dqn.native.learner import HostLearner
from hvd_dqn.native.numpy_mlp import NumpyMLP, Rows
from hvd_dqn.networks.build import build_network
from hvd_dqn.shares import first_index, share
from hvd_dqn.transition import Transition

from .agents import (
    FLAGS,
    KERNELS,
    PASSES,
    PLAIN_RULE,
    Exchange,
    Stretches,
    host_network,
    make_learner,
    make_numpy_learner,
)

KINDS: dict[str, tuple[tuple[int, ...], Any, int]] = {
    "vector": ((4,), np.float32, 0),
    "bytes": ((2, 3), np.uint8, 0),
    "category": ((), np.int32, 7),
}
IMAGES = {"images": ((36, 40, 2), np.uint8, 0)}
DEPTHS: list[tuple[int, ...]] = [(), (9,), (8, 5)]
ACTIONS = 3
SETTINGS = list(itertools.product(("adam", "rmsprop", "sgd"), ("mse", "huber"), (False, True), (0.0, 0.5)))
CASES = [(*settings, list(KINDS)[i % 3], DEPTHS[i // 3 % 3]) for i, settings in enumerate(SETTINGS)]
"""Each of the settings once, each kind with each depth, each kind and each depth with any single setting."""
if KERNELS.products_supported():
    # Where a gradient is next to nothing, as many of a CNN's are, other optimizers make large steps of its rounding.
    CASES += [(*settings, "images", ()) for settings in SETTINGS if settings[0] == "sgd"]


def _network(kind: str, hidden: tuple[int, ...]) -> keras.Model:
    shape, dtype, categories = (KINDS | IMAGES)[kind]
    return build_network("cnn" if kind in IMAGES else "mlp", shape, np.dtype(dtype), categories, ACTIONS, hidden, 3)


def _observations(kind: str, rng: np.random.Generator, *leading: int) -> np.ndarray:
    shape, dtype, categories = (KINDS | IMAGES)[kind]
    if dtype == np.float32:
        return rng.normal(size=(*leading, *shape)).astype(dtype)
    return rng.integers(categories or 256, size=(*leading, *shape)).astype(dtype)


def _batches(kind: str, updates: int, batch: int, seed: int = 0) -> Transition:
    """Returns K batches, a third of them terminal and another third truncated."""
    rng = np.random.default_rng(seed)
    ending = rng.integers(3, size=(updates, batch))
    return Transition(
        s_tm1=_observations(kind, rng, updates, batch),
        a_tm1=rng.integers(ACTIONS, size=(updates, batch)).astype(np.int32),
        r_t=(3 * rng.normal(size=(updates, batch))).astype(np.float32),
        terminated=ending == 0,
        truncated=ending == 1,
        s_t=_observations(kind, rng, updates, batch),
    )


def _pair(kind: str, hidden: tuple[int, ...], batch: int, **changes: Any) -> tuple[HostLearner, GraphLearner]:
    """Returns both learners with the same parameters, biases and a target of its own included."""
    settings = {"learning_rate": 1e-3} | changes
    fast = make_numpy_learner(_network(kind, hidden), batch, **settings)
    simple = make_learner(_network(kind, hidden), batch, **settings)
    rng = np.random.default_rng(8)
    scales = (0.01, 0.02) if kind in IMAGES else (0.1, 0.5)  # as large as a layer of this many inputs bears
    noise = (rng.normal(scale=scale, size=fast.layout.total).astype(np.float32) for scale in scales)
    online, target = (fast.online + part for part in noise)
    for learner in (fast, simple):
        learner.load(online, target, learner.slots)
    return fast, simple


def _assert_same(fast: HostLearner, simple: GraphLearner, before: dict[str, np.ndarray]) -> None:
    """Compares the states, and the ways that the vectors have gone since `before`."""
    mine, theirs = state_of(fast), state_of(simple)
    assert mine.keys() == theirs.keys()
    for name, vector in mine.items():
        np.testing.assert_allclose(vector, theirs[name], rtol=1e-4, atol=2e-6, err_msg=name)
        gone = theirs[name] - before[name]
        error = np.abs(vector - before[name] - gone).max()
        assert error <= 2e-3 * np.abs(gone).max(), name
    assert fast.step == simple.step


def _assert_same_report(one: LearnReport, other: LearnReport) -> None:
    assert one[:3] == other[:3]
    np.testing.assert_allclose(one[3:6], other[3:6], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(one.flags, other.flags)


@pytest.mark.parametrize(("optimizer", "loss", "double_dqn", "clip", "kind", "hidden"), CASES)
def test_both_learners_take_the_same_path(
    optimizer: str, loss: str, double_dqn: bool, clip: float, kind: str, hidden: tuple[int, ...]
) -> None:
    """Twenty-one updates in three calls, the target renewed in between; this rank has 8 of a global batch of 20."""
    fast, simple = _pair(
        kind,
        hidden,
        8,
        optimizer=optimizer,
        loss=loss,
        double_dqn=double_dqn,
        max_grad_norm=clip,
        global_batch_size=20,
    )
    before = state_of(simple)
    for call, updates in enumerate((4, 1, 16)):
        batches, flags = _batches(kind, updates, 8, seed=call), np.array([call, 1.5], np.float32)
        _assert_same_report(fast.learn(batches, flags), simple.learn(batches, flags))
        _assert_same(fast, simple, before)
        for learner in (fast, simple):
            learner.load_target(learner.online)
    assert fast.step == 21


@pytest.mark.parametrize("updates", [6, 7, 14])
def test_more_rows_than_fit_the_cache_are_valued_in_parts(updates: int) -> None:
    """Six batches of 85 just fit; seven have a part of their own for the rest; fourteen fill more than two."""
    assert NumpyMLP.rows_at_once == 6 * 85 + 2
    fast, simple = _pair("vector", (6,), 85)
    before = state_of(simple)
    batches = _batches("vector", updates, 85)
    _assert_same_report(fast.learn(batches, FLAGS), simple.learn(batches, FLAGS))
    _assert_same(fast, simple, before)


def test_a_batch_of_more_rows_than_fit_the_cache_is_valued_whole() -> None:
    fast, simple = _pair("vector", (6,), 2100)
    before = state_of(simple)
    batches = _batches("vector", 2, 2100)
    _assert_same_report(fast.learn(batches, FLAGS), simple.learn(batches, FLAGS))
    _assert_same(fast, simple, before)


@pytest.mark.skipif(CompiledMLP not in PASSES, reason="the compiled passes take AVX2 and FMA")
@pytest.mark.parametrize(("optimizer", "loss", "double_dqn", "clip", "kind", "hidden"), CASES[1::3])
def test_updates_in_one_call_are_those_made_one_by_one(
    optimizer: str, loss: str, double_dqn: bool, clip: float, kind: str, hidden: tuple[int, ...]
) -> None:
    """The same bits, whether C or Python stands between the kernels; an update that is not finite included."""
    settings: dict[str, Any] = {
        "optimizer": optimizer,
        "loss": loss,
        "double_dqn": double_dqn,
        "max_grad_norm": clip,
        "learning_rate": 1e-2,
        "global_batch_size": 20,
        "passes": CompiledMLP,
    }
    in_one_call = make_numpy_learner(_network(kind, hidden), 8, **settings)
    one_by_one = make_numpy_learner(_network(kind, hidden), 8, Exchange(), compiled=False, **settings)
    for call, updates in enumerate((4, 1, 16)):
        batches, flags = _batches(kind, updates, 8, seed=call), np.array([call, 1.5], np.float32)
        if call == 2:
            batches.r_t[9, 3] = np.nan
        reports = [learner.learn(batches, flags) for learner in (in_one_call, one_by_one)]
        assert reports[0][:6] == reports[1][:6]
        np.testing.assert_array_equal(reports[0].flags, reports[1].flags)
        states = [state_of(learner) for learner in (in_one_call, one_by_one)]
        for name, vector in states[0].items():
            np.testing.assert_array_equal(vector, states[1][name], err_msg=name)
        in_one_call.load_target(in_one_call.online)
        one_by_one.load_target(one_by_one.online)
    assert in_one_call.step == one_by_one.step == 4 + 1 + 9


@functools.cache
def _compiled_pair() -> tuple[HostLearner, GraphLearner, dict[str, np.ndarray]]:
    """Returns both learners and their state; compiled, as TensorFlow's own ReLU makes 0 of a NaN."""
    fast = make_numpy_learner(_network("vector", (8,)), 4, optimizer="adam", learning_rate=0.01)
    simple = make_learner(_network("vector", (8,)), 4, optimizer="adam", learning_rate=0.01, jit_compile=True)
    return fast, simple, state_of(fast)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("column", ["s_tm1", "r_t", "s_t"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_both_learners_stop_at_the_same_gradient_and_go_on_after_it(bad: float, column: str, first: int) -> None:
    """One of four batches is bad: what came before it is applied, nothing after it, until the next call."""
    fast, simple, start = _compiled_pair()
    batches, flags = _batches("vector", 4, 4), np.array([2.0, 0.5], np.float32)
    getattr(batches, column)[first, 2] = bad
    batches.terminated[:] = False
    reports = []
    for learner in (fast, simple):
        load_state(learner, start, 0)
        reports.append(learner.learn(batches, flags))
    assert reports[0][:3] == (first, False, False)
    _assert_same_report(*reports)
    for name, vector in state_of(fast).items():
        np.testing.assert_allclose(vector, state_of(simple)[name], rtol=1e-4, atol=2e-6, err_msg=name)
    good = _batches("vector", 2, 4, seed=1)
    _assert_same_report(fast.learn(good, flags), simple.learn(good, flags))
    assert fast.step == simple.step == first + 2


@pytest.mark.parametrize("clip", [0.0, 10.0])
def test_both_learners_stop_at_a_gradient_too_large_to_square(clip: float) -> None:
    """Its norm overflows, so it cannot be clipped: clipping would count an update that moves nothing."""
    batches = _batches("vector", 1, 4)
    batches.r_t[:] = 1e17
    batches.s_tm1[:] *= 1e4
    network = _network("vector", ())
    for make in (make_numpy_learner, make_learner):
        learner = make(network, 4, learning_rate=1e-21, max_grad_norm=clip)
        before = state_of(learner)["online"]
        report = learner.learn(batches, FLAGS)
        assert (report.steps, report.finite, report.local_finite) == (0, False, False), make.__name__
        np.testing.assert_array_equal(learner.online, before)


class _Meeting:
    """Ranks in threads of one process, which meet at every round and add up in the order of ranks."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=60.0)
        self._parts: list[np.ndarray] = [np.zeros(0)] * size

    def make_rounds(self, rank: int, length: int, produce: Produce, calls_tensorflow: bool) -> Rounds:
        """Returns rank's rounds."""

        def run(rounds: int) -> np.ndarray:
            total = np.zeros(length, np.float32)
            for k in range(rounds):
                self._parts[rank] = produce(k, total).copy()
                self._barrier.wait()
                total = np.sum(self._parts, axis=0, dtype=np.float32)
                self._barrier.wait()
            return total

        return run


def _ranks(size: int, batch: int, **changes: Any) -> list[HostLearner]:
    """Returns the learners of some ranks that share a batch."""
    meeting = _Meeting(size)
    learners = []
    for rank in range(size):
        exchange: Any = type("Exchange", (), {"make_rounds": functools.partial(meeting.make_rounds, rank)})
        settings = {"global_batch_size": batch} | changes
        learners.append(make_numpy_learner(_network("vector", (8,)), share(batch, rank, size), exchange, **settings))
    return learners


def _learn_together(learners: list[HostLearner], batches: Transition) -> list[LearnReport]:
    """Runs every rank on its share of the batches, in a thread each; rank r sends the flags [1, r]."""

    def learn(rank: int) -> LearnReport:
        batch, size = batches.a_tm1.shape[1], len(learners)
        first = first_index(batch, rank, size)
        own = slice(first, first + share(batch, rank, size))
        return learners[rank].learn(Transition(*(column[:, own] for column in batches)), np.array([1.0, rank]))

    with ThreadPoolExecutor(len(learners)) as threads:
        return list(threads.map(learn, range(len(learners))))


@pytest.mark.parametrize(("size", "batch"), [(2, 12), (3, 11)])
def test_ranks_that_share_a_batch_learn_what_one_rank_with_all_of_it_learns(size: int, batch: int) -> None:
    """Six and six of twelve, four, four and three of eleven: bitwise the same on all ranks, and the single rank's."""
    settings: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.01, "double_dqn": True, "max_grad_norm": 1.0}
    learners = _ranks(size, batch, **settings)
    single = make_numpy_learner(_network("vector", (8,)), batch, **settings)
    for call, updates in enumerate((1, 7)):
        batches = _batches("vector", updates, batch, seed=call)
        reports = _learn_together(learners, batches)
        expected = single.learn(batches, FLAGS)
        for report in reports:
            assert report[:6] == reports[0][:6]
            assert report[:3] == expected[:3]
            np.testing.assert_allclose(report[3:6], expected[3:6], rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(report.flags, [size, sum(range(size))])
        for learner in (*learners, single):
            learner.load_target(learners[0].online)
    for name, vector in state_of(single).items():
        np.testing.assert_allclose(state_of(learners[0])[name], vector, rtol=1e-3, atol=1e-5, err_msg=name)
        for learner in learners:
            np.testing.assert_array_equal(state_of(learner)[name], state_of(learners[0])[name], err_msg=name)


def test_one_ranks_nan_stops_all_ranks_at_the_same_update_and_one_knows_itself_guilty() -> None:
    learners = _ranks(3, 12, optimizer="adam")
    batches = _batches("vector", 5, 12)
    batches.r_t[2, 6] = np.nan  # the second rank's
    reports = _learn_together(learners, batches)
    assert [report[:3] for report in reports] == [(2, False, True), (2, False, False), (2, False, True)]
    for name, vector in state_of(learners[0]).items():
        assert np.isfinite(vector).all(), name
        for learner in learners:
            np.testing.assert_array_equal(state_of(learner)[name], vector, err_msg=name)


def test_initial_parameters_are_copied() -> None:
    """The network's own weights and the caller's array stay as they are, and so does the target."""
    network = _network("vector", (8,))
    initial = ParameterLayout(network).flatten_variables(network)
    kept = initial.copy()
    learner = make_numpy_learner(network, 4, initial=initial)
    learner.learn(_batches("vector", 2, 4), FLAGS)
    np.testing.assert_array_equal(initial, kept)
    np.testing.assert_array_equal(learner.target, kept)


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("follow", [True, False])
def test_acting_sees_updates_in_place_at_once_if_it_follows_and_else_only_after_a_load(
    on_host: bool, follow: bool
) -> None:
    network = _network("vector", (8,))
    learner = make_numpy_learner(network, 4)
    passes = host_network(network) if on_host else None
    values = make_action_values(learner.online, passes, GraphNetwork(network, **PLAIN_RULE), follow=follow)
    s = _observations("vector", np.random.default_rng(0), 5)
    before = values(s)
    learner.learn(_batches("vector", 2, 4), FLAGS)
    assert np.array_equal(values(s), before) == (not follow)
    values.load(learner.online)
    assert np.abs(values(s) - before).max() > 1e-3


def test_the_clock_hears_every_updates_phases_in_order() -> None:
    clock = Stretches()
    make_numpy_learner(_network("vector", (8,)), 4, clock=clock).learn(_batches("vector", 2, 4), FLAGS)
    assert [phase for phase, _, _ in clock.heard] == ["gradient", "allreduce", "apply"] * 2


@pytest.mark.parametrize("hidden", DEPTHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passes", PASSES)
def test_backward_is_the_gradient_of_forward(passes: type[NumpyMLP], kind: str, hidden: tuple[int, ...]) -> None:
    """Against a gradient tape of the Keras network; the vector's tail, which is no gradient, stays as it is."""
    network = _network(kind, hidden)
    layout, mlp = ParameterLayout(network), host_network(network, passes)
    rng = np.random.default_rng(0)
    vector = layout.flatten_variables(network) + rng.normal(scale=0.1, size=layout.total).astype(np.float32)
    for variable, values in zip(network.trainable_variables, layout.views(vector).values(), strict=True):
        variable.assign(values)
    s, dq = _observations(kind, rng, 7), rng.normal(size=(7, ACTIONS)).astype(np.float32)
    with tf.GradientTape() as tape:
        q = network(s)
        total = tf.reduce_sum(q * dq)
    expected = np.concatenate([np.ravel(g) for g in tape.gradient(total, network.trainable_variables)])
    layers, x, memory = mlp.affine(vector), mlp.features(s), mlp.activations(7, backward=True)
    np.testing.assert_allclose(mlp.forward(layers, x, memory), q, rtol=1e-4, atol=1e-5)
    gradient = np.full(layout.total + NUM_STATISTICS, np.nan, np.float32)
    mlp.backward(layers, x, memory, Rows(dq), mlp.affine(gradient))
    np.testing.assert_allclose(gradient[: layout.total], expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(gradient[layout.total :]).all()
