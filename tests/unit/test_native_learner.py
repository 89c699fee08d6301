"""The native learner's law: its updates are TensorFlow's updates, alone and as one of several ranks."""

from __future__ import annotations

import functools
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest

from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.distributed.communicator import MPIHandles
from hvd_dqn.learner.action_values import TensorFlowActionValues
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.gradient import Compilation
from hvd_dqn.learner.learner import Learner, Report, load_state, state_of
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.learner.tensorflow import TensorFlowLearner
from hvd_dqn.native.learner import NativeLearner
from hvd_dqn.networks.mlp import build
from hvd_dqn.shares import first_index, share
from hvd_dqn.transition import Transition

from .learners import Exchange, Stretches, learn, make_learner, network_spec, part_of
from .native_learners import LIBRARY, MPI_ERROR, make_native_learner, mpi_handles, native_agent

pytestmark = pytest.mark.skipif(not LIBRARY.products_supported(), reason="the native learner takes AVX2 and FMA")

KINDS: dict[str, tuple[tuple[int, ...], Any, int]] = {
    "vector": ((4,), np.float32, 0),
    "bytes": ((2, 3), np.uint8, 0),
    "category": ((), np.int32, 7),
}
DEPTHS: list[tuple[int, ...]] = [(), (9,), (8, 5)]
ACTIONS = 3
SETTINGS = list(itertools.product(("adam", "rmsprop", "sgd"), ("mse", "huber"), (False, True), (0.0, 0.5)))
CASES = [(*settings, list(KINDS)[i % 3], DEPTHS[i // 3 % 3]) for i, settings in enumerate(SETTINGS)]
"""Each of the settings once, each kind with each depth, each kind and each depth with any single setting."""


def _network(kind: str, hidden: tuple[int, ...]) -> keras.Model:
    shape, dtype, categories = KINDS[kind]
    spec = network_spec(
        shape, np.dtype(dtype), num_categories=categories, num_actions=ACTIONS, hidden_sizes=hidden, seed=3
    )
    return build(spec)


def _observations(kind: str, rng: np.random.Generator, *leading: int) -> np.ndarray:
    shape, dtype, categories = KINDS[kind]
    if dtype == np.float32:
        return rng.normal(size=(*leading, *shape)).astype(dtype)
    return rng.integers(categories or 256, size=(*leading, *shape)).astype(dtype)


def _batches(kind: str, updates: int, batch: int, seed: int = 0) -> Transition:
    """Returns K batches, a third of them terminal."""
    rng = np.random.default_rng(seed)
    return Transition(
        s_tm1=_observations(kind, rng, updates, batch),
        a_tm1=rng.integers(ACTIONS, size=(updates, batch)).astype(np.int32),
        r_t=(3 * rng.normal(size=(updates, batch))).astype(np.float32),
        discount_t=np.where(rng.integers(3, size=(updates, batch)) == 0, 0.0, 0.9).astype(np.float32),
        s_t=_observations(kind, rng, updates, batch),
    )


def _pair(kind: str, hidden: tuple[int, ...], batch: int, **changes: Any) -> tuple[NativeLearner, TensorFlowLearner]:
    """Returns both learners with the same parameters, biases and a target of its own included."""
    settings = {"learning_rate": 1e-3} | changes
    fast = make_native_learner(_network(kind, hidden), batch, **settings)
    simple = make_learner(_network(kind, hidden), batch, **settings)
    rng = np.random.default_rng(8)
    noise = (rng.normal(scale=scale, size=fast.layout.total).astype(np.float32) for scale in (0.1, 0.5))
    online, target = (fast.online + part for part in noise)
    for learner in (fast, simple):
        learner.load(online, target, learner.slots)
    return fast, simple


def _assert_same(fast: NativeLearner, simple: TensorFlowLearner, before: dict[str, np.ndarray]) -> None:
    """Compares the states, and the ways that the vectors have gone since `before`."""
    mine, theirs = state_of(fast), state_of(simple)
    assert mine.keys() == theirs.keys()
    for name, vector in mine.items():
        np.testing.assert_allclose(vector, theirs[name], rtol=1e-4, atol=2e-6, err_msg=name)
        gone = theirs[name] - before[name]
        error = np.abs(vector - before[name] - gone).max()
        assert error <= 2e-3 * np.abs(gone).max(), name
    assert fast.step == simple.step


def _assert_same_report(one: Report, other: Report) -> None:
    assert one[:3] == other[:3]
    np.testing.assert_allclose(one[3:6], other[3:6], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(one.signals, other.signals)
    np.testing.assert_allclose(one.priorities[: one.steps], other.priorities[: one.steps], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("optimizer", "loss", "double", "clip", "kind", "hidden"), CASES)
def test_both_learners_take_the_same_path(
    optimizer: str, loss: str, double: bool, clip: float, kind: str, hidden: tuple[int, ...]
) -> None:
    """Twenty-one updates in three calls, the target renewed in between; this rank has 8 of a global batch of 20."""
    fast, simple = _pair(
        kind,
        hidden,
        8,
        optimizer=optimizer,
        loss=loss,
        double=double,
        max_grad_norm=clip,
        global_batch_size=20,
    )
    before = state_of(simple)
    for call, updates in enumerate((4, 1, 16)):
        for learner in (fast, simple):
            learner.learning_rate = 1e-3 / (call + 1)
        batches, signals = _batches(kind, updates, 8, seed=call), np.array([call, 1.5], np.float32)
        weights = np.random.default_rng(call).uniform(0.0, 2.0, (updates, 8)).astype(np.float32)
        _assert_same_report(*(learner.learn(batches, weights, signals) for learner in (fast, simple)))
        _assert_same(fast, simple, before)
        for learner in (fast, simple):
            learner.load_target(learner.online)
    assert fast.step == 21


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("double", [False, True])
def test_weights_are_the_same_within_a_hundred_thousandth_after_100_updates(optimizer: str, double: bool) -> None:
    """On the step sizes that the presets have; five copies to the target network in between."""
    settings: dict[str, Any] = {
        "optimizer": optimizer,
        "double": double,
        "loss": "huber",
        "max_grad_norm": 10.0,
    }
    fast = make_native_learner(_network("vector", (64, 64)), 32, learning_rate=2.5e-4, **settings)
    simple = make_learner(_network("vector", (64, 64)), 32, learning_rate=2.5e-4, **settings)
    before = np.array(simple.online)
    for call in range(5):
        batches = _batches("vector", 20, 32, seed=call)
        for learner in (fast, simple):
            learn(learner, batches)
            learner.load_target(learner.online)
    assert fast.step == simple.step == 100
    np.testing.assert_allclose(fast.online, simple.online, rtol=0, atol=1e-5)
    assert np.abs(simple.online - before).max() > 1e-4


@pytest.mark.parametrize(("updates", "batch"), [(1, 600), (3, 512), (7, 85)])
def test_more_rows_than_a_pass_takes_are_valued_in_passes_in_turn(updates: int, batch: int) -> None:
    """A pass takes 512 rows, or a batch if that is more: 595 rows of seven batches need two."""
    fast, simple = _pair("vector", (6,), batch)
    before = state_of(simple)
    batches = _batches("vector", updates, batch)
    _assert_same_report(learn(fast, batches), learn(simple, batches))
    _assert_same(fast, simple, before)


@functools.cache
def _compiled_pair() -> tuple[NativeLearner, TensorFlowLearner, dict[str, np.ndarray]]:
    """Returns both learners and their state; compiled, as TensorFlow's own ReLU makes 0 of a NaN."""
    fast = make_native_learner(_network("vector", (8,)), 4, optimizer="adam", learning_rate=0.01)
    simple = make_learner(
        _network("vector", (8,)), 4, optimizer="adam", learning_rate=0.01, compilation=Compilation(jit_compile=True)
    )
    return fast, simple, state_of(fast)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("column", ["s_tm1", "r_t", "s_t"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_both_learners_stop_at_the_same_gradient_and_go_on_after_it(bad: float, column: str, first: int) -> None:
    """One of four batches is bad: what came before it is applied, nothing after it, until the next call."""
    fast, simple, start = _compiled_pair()
    batches, signals = _batches("vector", 4, 4), np.array([2.0, 0.5], np.float32)
    getattr(batches, column)[first, 2] = bad
    batches.discount_t[:] = 0.9
    reports = []
    for learner in (fast, simple):
        load_state(learner, start, 0)
        reports.append(learn(learner, batches, signals))
    assert reports[0][:3] == (first, False, False)
    _assert_same_report(*reports)
    for name, vector in state_of(fast).items():
        np.testing.assert_allclose(vector, state_of(simple)[name], rtol=1e-4, atol=2e-6, err_msg=name)
    good = _batches("vector", 2, 4, seed=1)
    _assert_same_report(learn(fast, good, signals), learn(simple, good, signals))
    assert fast.step == simple.step == first + 2


@pytest.mark.parametrize("clip", [0.0, 10.0])
def test_both_learners_stop_at_a_gradient_too_large_to_square(clip: float) -> None:
    """Its norm overflows, so it cannot be clipped: clipping would count an update that moves nothing."""
    batches = _batches("vector", 1, 4)
    batches.r_t[:] = 1e17
    batches.s_tm1[:] *= 1e4
    network = _network("vector", ())
    for make in (make_native_learner, make_learner):
        learner = make(network, 4, learning_rate=1e-21, max_grad_norm=clip)
        before = state_of(learner)["online"]
        report = learn(learner, batches)
        assert (report.steps, report.finite, report.local_finite) == (0, False, False), make.__name__
        np.testing.assert_array_equal(learner.online, before)


class _Barrier:
    """Ranks in threads of one process: each waits for all parts and adds them up in the order of ranks."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=60.0)
        self._parts: list[np.ndarray] = [np.zeros(0)] * size

    def exchange(self, rank: int) -> Exchange:
        """Returns a rank's sums."""
        return Exchange(functools.partial(self._sum, rank))

    def _sum(self, rank: int, vector: np.ndarray) -> np.ndarray:
        self._parts[rank] = vector.copy()
        self._barrier.wait()
        total: np.ndarray = np.sum(self._parts, axis=0, dtype=np.float32)
        self._barrier.wait()
        return total


def _ranks(size: int, batch: int, **changes: Any) -> list[NativeLearner]:
    """Returns the learners of some ranks that share a batch."""
    barrier, settings = _Barrier(size), {"global_batch_size": batch} | changes
    return [
        make_native_learner(_network("vector", (8,)), share(batch, rank, size), barrier.exchange(rank), **settings)
        for rank in range(size)
    ]


def _learn_together(learners: list[NativeLearner], batches: Transition) -> list[Report]:
    """Runs every rank on its share of the batches, in a thread each; rank r sends the signals [1, r]."""

    def learn_own(rank: int) -> Report:
        batch, size = batches.a_tm1.shape[1], len(learners)
        own = part_of(batches, first_index(batch, rank, size), share(batch, rank, size))
        return learn(learners[rank], own, np.array([1.0, rank]))

    with ThreadPoolExecutor(len(learners)) as threads:
        return list(threads.map(learn_own, range(len(learners))))


@pytest.mark.parametrize(("size", "batch"), [(2, 12), (3, 11)])
def test_ranks_that_share_a_batch_learn_what_one_rank_with_all_of_it_learns(size: int, batch: int) -> None:
    """Six and six of twelve, four, four and three of eleven: bitwise the same on all ranks, and the single rank's."""
    settings: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.01, "double": True, "max_grad_norm": 1.0}
    learners = _ranks(size, batch, **settings)
    single = make_native_learner(_network("vector", (8,)), batch, **settings)
    for call, updates in enumerate((1, 7)):
        batches = _batches("vector", updates, batch, seed=call)
        reports = _learn_together(learners, batches)
        expected = learn(single, batches)
        for report in reports:
            assert report[:6] == reports[0][:6]
            assert report[:3] == expected[:3]
            np.testing.assert_allclose(report[3:6], expected[3:6], rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(report.signals, [size, sum(range(size))])
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
    learner = make_native_learner(network, 4, initial=initial)
    learn(learner, _batches("vector", 2, 4))
    np.testing.assert_array_equal(initial, kept)
    np.testing.assert_array_equal(learner.target, kept)


@pytest.mark.parametrize("follow", [True, False])
def test_acting_sees_updates_in_place_at_once_if_it_follows_and_else_only_after_a_load(follow: bool) -> None:
    network = _network("vector", (8,))
    learner = make_native_learner(network, 4)
    values = native_agent(network).action_values(learner, follow=follow)
    s = _observations("vector", np.random.default_rng(0), 5)
    before = values(s)
    learn(learner, _batches("vector", 2, 4))
    assert np.array_equal(values(s), before) == (not follow)
    values.load(learner.online)
    assert np.abs(values(s) - before).max() > 1e-3


def test_both_learners_act_alike() -> None:
    network = _network("vector", (8,))
    learner, flat = make_native_learner(network, 4), FlatNetwork(network)
    learn(learner, _batches("vector", 2, 4))
    s = _observations("vector", np.random.default_rng(0), 600)
    native = native_agent(network).action_values(learner, follow=False)
    tensorflow = TensorFlowActionValues(flat, DQN("mse", False), learner.online)
    np.testing.assert_allclose(native(s), tensorflow(s), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_a_state_of_one_learner_is_a_state_of_the_other(optimizer: str) -> None:
    """A run may be resumed with another --learner: names, shapes and kinds are the same."""
    fast, simple = _pair("vector", (8,), 4, optimizer=optimizer)
    pairs: list[tuple[Learner, Learner]] = [(simple, fast), (fast, simple)]
    for seed, (one, other) in enumerate(pairs):
        learn(one, _batches("vector", 2, 4, seed=seed))
        load_state(other, state_of(one), one.step)
        assert state_of(one).keys() == state_of(other).keys()
        for name, vector in state_of(one).items():
            np.testing.assert_array_equal(state_of(other)[name], vector, err_msg=name)
    assert simple.step == fast.step == 4


def test_the_clock_is_told_of_the_transfer_and_of_every_updates_phases_in_order() -> None:
    clock = Stretches()
    learn(make_native_learner(_network("vector", (8,)), 4, clock=clock), _batches("vector", 2, 4))
    assert [phase for phase, _, _ in clock.heard] == ["transfer", *["gradient", "allreduce", "apply"] * 2]


def test_an_allreduce_that_fails_is_an_error_and_no_update() -> None:
    """Where MPI returns at all, the vector that it leaves is of no use."""
    handles = mpi_handles(make_native_learner(_network("vector", ()), 4, Exchange()).answer)  # type: ignore[attr-defined]
    wrong: MPIHandles = handles._replace(operation=handles.operation + 1)
    learner = make_native_learner(_network("vector", (8,)), 4, mpi=wrong)
    before = state_of(learner)
    with pytest.raises(RuntimeError, match=f"MPI_Allreduce failed with error {MPI_ERROR}"):
        learn(learner, _batches("vector", 3, 4))
    for name, vector in state_of(learner).items():
        np.testing.assert_array_equal(vector, before[name], err_msg=name)
    assert learner.step == 0


def _denormal_bits(values: np.ndarray) -> np.ndarray:
    """Returns which float32 numbers are denormal, by their bits: arithmetic may count them as zero."""
    bits = values.view(np.uint32)
    return ((bits & 0x7F800000) == 0) & ((bits & 0x007FFFFF) != 0)


def test_denormal_momentum_counts_as_zero_and_the_processors_mode_comes_back() -> None:
    """Over a denormal number a processor takes a hundred times longer; after the call NumPy makes them as before."""
    learner = make_native_learner(_network("vector", (8,)), 4, optimizer="adam", learning_rate=1e-3)
    batches = _batches("vector", 1, 4)
    batches.s_tm1[..., 0] = 0.0  # its row of the kernel has no gradient, and momentum decays to nothing
    tiny = np.full_like(learner.online, np.float32(1.2e-38))  # normal, and nine tenths of it are not
    learner.load(learner.online, learner.target, (tiny, np.zeros_like(tiny)))
    learn(learner, batches)
    momentum = learner.slots[0][:8]
    assert not _denormal_bits(learner.slots[0]).any()
    assert (momentum.view(np.uint32) == 0).all()
    made = np.full(8, 1.2e-38, np.float32) * np.float32(0.9)
    assert _denormal_bits(made).all()
