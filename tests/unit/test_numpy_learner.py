"""The fast path's law: NumPy's updates are TensorFlow's updates."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.agent.learner import NUM_STATISTICS, LearnReport, load_state, state_of
from hvd_dqn.agent.networks import build_network
from hvd_dqn.agent.numpy_learner import NumpyLearner
from hvd_dqn.agent.numpy_mlp import NumpyMLP
from hvd_dqn.agent.parameters import ParameterLayout
from hvd_dqn.maths.losses import LOSSES
from hvd_dqn.maths.numpy_losses import NUMPY_LOSSES
from hvd_dqn.parallel.ranks import SingleRank
from hvd_dqn.transition import Transition

from .agents import FLAGS, make_learner

KINDS: dict[str, tuple[tuple[int, ...], Any, int]] = {
    "vector": ((4,), np.float32, 0),
    "bytes": ((2, 3), np.uint8, 0),
    "category": ((), np.int32, 7),
}
ACTIONS = 3


def _network(kind: str, hidden: tuple[int, ...]) -> Any:
    shape, dtype, categories = KINDS[kind]
    return build_network("mlp", shape, np.dtype(dtype), categories, ACTIONS, hidden, 3)


def _batches(kind: str, updates: int, batch: int, seed: int = 0) -> Transition:
    shape, dtype, categories = KINDS[kind]
    rng = np.random.default_rng(seed)

    def observations() -> np.ndarray:
        full = (updates, batch, *shape)
        if dtype == np.float32:
            return rng.normal(size=full).astype(dtype)
        return rng.integers(categories or 256, size=full).astype(dtype)

    ending = rng.integers(3, size=(updates, batch))
    return Transition(
        s_tm1=observations(),
        a_tm1=rng.integers(ACTIONS, size=(updates, batch)).astype(np.int32),
        r_t=(3 * rng.normal(size=(updates, batch))).astype(np.float32),
        terminated=ending == 0,
        truncated=ending == 1,
        s_t=observations(),
    )


def _numpy_learner(kind: str, hidden: tuple[int, ...], batch: int, **changes: Any) -> NumpyLearner:
    _, dtype, categories = KINDS[kind]
    network = _network(kind, hidden)
    layout = ParameterLayout(network)
    settings: dict[str, Any] = {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "loss": "mse",
        "gamma": 0.9,
        "double_dqn": False,
        "max_grad_norm": 0.0,
        "global_batch_size": batch,
        "batch_size_per_rank": batch,
        "num_flags": 2,
        "make_rounds": SingleRank().make_rounds,
    }
    mlp = NumpyMLP(layout, categories, np.dtype(dtype))
    return NumpyLearner(mlp, layout, layout.flatten_variables(network), **(settings | changes))


def _pair(kind: str, hidden: tuple[int, ...], batch: int, **changes: Any) -> tuple[NumpyLearner, Any]:
    fast = _numpy_learner(kind, hidden, batch, **changes)
    return fast, make_learner(_network(kind, hidden), batch, **({"learning_rate": 0.01} | changes))


def _assert_same(fast: NumpyLearner, simple: Any) -> None:
    expected = state_of(simple)
    for name, vector in state_of(fast).items():
        np.testing.assert_allclose(vector, expected[name], rtol=2e-3, atol=2e-5, err_msg=name)


def _assert_same_report(one: LearnReport, other: LearnReport) -> None:
    assert one[:3] == other[:3]
    assert one[3:6] == pytest.approx(other[3:6], rel=1e-3, abs=1e-5)
    np.testing.assert_allclose(one.flags, other.flags)


@pytest.mark.parametrize(
    ("optimizer", "loss", "double_dqn", "clip"),
    [
        (optimizer, loss, double_dqn, clip)
        for (optimizer, rate), loss, double_dqn, clip in itertools.product(
            {"adam": 0, "rmsprop": 0, "sgd": 0}.items(), ("mse", "huber"), (False, True), (0.0, 0.5)
        )
    ],
)
def test_both_learners_take_the_same_path(optimizer: str, loss: str, double_dqn: bool, clip: float) -> None:
    """Twenty-one updates with a target sync after each call, from the same weights on the same batches."""
    changes = {"optimizer": optimizer, "loss": loss, "double_dqn": double_dqn, "max_grad_norm": clip}
    changes["learning_rate"] = 1e-3
    fast, simple = _pair("vector", (8, 5), 16, **changes)
    for call, updates in enumerate((1, 4, 16)):
        batches = _batches("vector", updates, 16, seed=call)
        flags = np.array([call, 1.5], np.float32)
        _assert_same_report(fast.learn(batches, flags), simple.learn(batches, flags))
        _assert_same(fast, simple)
        for learner in (fast, simple):
            learner.load_target(learner.online)
    assert fast.step == simple.step == 21


@pytest.mark.parametrize("hidden", [(), (6,), (9, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_both_learners_agree_on_every_observation_and_depth(kind: str, hidden: tuple[int, ...]) -> None:
    fast, simple = _pair(kind, hidden, 8, loss="huber", max_grad_norm=1.0)
    batches = _batches(kind, 3, 8)
    _assert_same_report(fast.learn(batches, FLAGS), simple.learn(batches, FLAGS))
    _assert_same(fast, simple)


def test_more_rows_than_fit_the_cache_are_valued_in_parts() -> None:
    fast, simple = _pair("vector", (6,), 300)
    batches = _batches("vector", 11, 300)
    _assert_same_report(fast.learn(batches, FLAGS), simple.learn(batches, FLAGS))
    _assert_same(fast, simple)


def test_parameters_in_several_blocks_are_all_updated() -> None:
    fast, simple = _pair("vector", (200, 200), 8, optimizer="adam", max_grad_norm=1.0)
    assert fast.layout.total > 1 << 15
    batches = _batches("vector", 2, 8)
    fast.learn(batches, FLAGS)
    simple.learn(batches, FLAGS)
    _assert_same(fast, simple)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_shares_sum_to_the_full_batch_gradient(size: int) -> None:
    """A rank's vectors, summed by the exchange, are those of one rank with the whole batch."""
    batches, sent = _batches("vector", 1, 12), []

    def keep(length: int, produce: Any) -> Any:
        def run(rounds: int) -> np.ndarray:
            sent.append(produce(0, np.zeros(length, np.float32)).copy())
            return sent[-1]

        return run

    _numpy_learner("vector", (8,), 12, make_rounds=keep).learn(batches, FLAGS)
    for rank in range(size):
        own = Transition(*(column[:, rank::size] for column in batches))
        learner = _numpy_learner("vector", (8,), 12 // size, global_batch_size=12, make_rounds=keep)
        learner.learn(own, FLAGS)
    np.testing.assert_allclose(sum(sent[1:]), sent[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_not_applied_nor_any_after_it(bad: float) -> None:
    fast, simple = _pair("vector", (8,), 4, optimizer="adam")
    batches = _batches("vector", 4, 4)
    batches.r_t[1, 2] = bad
    batches.terminated[:] = False
    mine, theirs = fast.learn(batches, FLAGS), simple.learn(batches, FLAGS)
    assert (mine.steps, mine.finite, mine.local_finite) == (1, False, False)
    assert (theirs.steps, theirs.finite, theirs.local_finite) == (1, False, False)
    _assert_same(fast, simple)
    assert fast.step == 1


def test_another_ranks_nan_stops_this_rank_which_knows_itself_innocent() -> None:
    def poisoned(length: int, produce: Any) -> Any:
        return lambda rounds: produce(0, np.zeros(length, np.float32)) * np.float32(np.nan)

    learner = _numpy_learner("vector", (8,), 4, make_rounds=poisoned)
    before = state_of(learner)
    report = learner.learn(_batches("vector", 1, 4), FLAGS)
    assert (report.finite, report.local_finite, report.steps) == (False, True, 0)
    for name, vector in state_of(learner).items():
        np.testing.assert_array_equal(vector, before[name])


def test_large_but_finite_gradients_are_applied() -> None:
    """Their squares' sum overflows; they do not."""
    learner = _numpy_learner("vector", (), 4, learning_rate=1e-30)
    batches = _batches("vector", 1, 4)
    batches.r_t[:] = 1e17
    batches.s_tm1[:] *= 1e4
    with np.errstate(over="ignore"):
        assert learner.learn(batches, FLAGS).finite


def test_loading_copies() -> None:
    learner = _numpy_learner("vector", (8,), 4, optimizer="adam")
    learner.load_target(learner.online)
    saved = state_of(learner)
    learner.learn(_batches("vector", 2, 4), FLAGS)
    assert (learner.online != saved["online"]).any()
    np.testing.assert_array_equal(learner.target, saved["target"])
    np.testing.assert_array_equal(learner.target, saved["online"])
    load_state(learner, saved, 0)
    saved["online"][:] = 0.0
    assert learner.online.any()


def test_the_clock_hears_of_every_phase() -> None:
    heard: list[tuple[str, float, float]] = []
    learner = _numpy_learner("vector", (8,), 4, clock=lambda *phase: heard.append(phase))
    learner.learn(_batches("vector", 2, 4), FLAGS)
    assert [phase for phase, _, _ in heard] == ["gradient", "allreduce", "apply"] * 2
    for (_, _, end), (_, start, _) in itertools.pairwise(heard):
        assert start == end


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_losses_and_slopes_are_tensorflows(loss: str) -> None:
    td_error = np.array([-3.0, -1.0, -0.4, 0.0, 0.7, 1.0, 2.5], np.float32)
    tensor = tf.constant(td_error)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        expected = LOSSES[loss](tensor)
    value, slope = NUMPY_LOSSES[loss](td_error)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, tape.gradient(expected, tensor), rtol=1e-6)


@pytest.mark.parametrize("hidden", [(), (6,), (9, 5)])
def test_backward_is_the_gradient_of_forward(hidden: tuple[int, ...]) -> None:
    network = _network("vector", hidden)
    layout = ParameterLayout(network)
    mlp = NumpyMLP(layout, 0, np.dtype(np.float32))
    rng = np.random.default_rng(0)
    s, dq = rng.normal(size=(7, 4)).astype(np.float32), rng.normal(size=(7, ACTIONS)).astype(np.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(network(s) * dq)
    expected = np.concatenate([g.numpy().ravel() for g in tape.gradient(total, network.trainable_variables)])
    layers, x, memory = mlp.affine(layout.flatten_variables(network)), mlp.features(s), mlp.activations(7)
    mlp.forward(layers, x, memory)
    gradient = np.full(layout.total + NUM_STATISTICS, np.nan, np.float32)
    mlp.backward(layers, x, memory, dq, mlp.affine(gradient))
    np.testing.assert_allclose(gradient[: layout.total], expected, rtol=1e-4, atol=1e-5)
