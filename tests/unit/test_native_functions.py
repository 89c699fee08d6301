"""The native learner's functions against TensorFlow's optimizers and losses, and over instruction sets."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.dqn import double_q_targets, td_targets
from hvd_dqn.algorithms.losses import LOSSES
from hvd_dqn.errors import UserError
from hvd_dqn.learner.optimizers import OPTIMIZERS, clip_by_global_norm
from hvd_dqn.native import library as library_module
from hvd_dqn.native.learner import _Batches, _Learner, _Report
from hvd_dqn.native.library import FOLDER, STRUCTS, check_struct, load_library, pointer
from hvd_dqn.native.mlp import _Struct
from hvd_dqn.native.optimizers import BoundOptimizer, bind_optimizer

from .native_learners import LIBRARY

SIZE = 1000
STEPS = 60
_RNG = np.random.default_rng(1)
START = _RNG.normal(size=SIZE).astype(np.float32)
SCALES = 10.0 ** np.linspace(-4, 2, SIZE)
"""Gradients from far below to far above the optimizers' epsilons."""
GRADIENTS = (_RNG.normal(size=(STEPS, SIZE)) * SCALES + 0.3 * SCALES).astype(np.float32)
TD_ERRORS = np.array([-3.0, -1.0, -0.4, 0.0, 0.7, 1.0, 2.5, 1000.0], np.float32)

optimizers = pytest.mark.parametrize("name", OPTIMIZERS)
losses = pytest.mark.parametrize("name", LOSSES)


class Walk:
    """Parameters and slots on their way through updates with a step size of 0.01."""

    def __init__(self, name: str, library: ctypes.CDLL = LIBRARY, epsilon: float = 0.0) -> None:
        self.parameters, self.slots = START.copy(), [np.zeros(SIZE, np.float32) for _ in OPTIMIZERS[name].slot_names]
        self._library = library
        self._optimizer = bind_optimizer(name, self.parameters, self.slots, 0.01, epsilon)

    def go(self, gradient: np.ndarray, step: int, scale: float = 1.0) -> None:
        self._library.optimizer_step(ctypes.addressof(self._optimizer), pointer(gradient), scale, step)


@optimizers
@pytest.mark.parametrize("first_step", [1, 1_000_000])
def test_each_step_is_tensorflows_step(name: str, first_step: int) -> None:
    """Parameters and slots, from one state at every step, so that rounding does not add up; late in a run too."""
    walk = Walk(name)
    for step, gradient in enumerate(GRADIENTS, start=first_step):
        expected, expected_slots = OPTIMIZERS[name].update(
            tf.constant(walk.parameters),
            tuple(tf.constant(slot) for slot in walk.slots),
            tf.constant(gradient),
            tf.constant(step, tf.float32),
            0.01,
        )
        before, slots_before = walk.parameters.copy(), [slot.copy() for slot in walk.slots]
        walk.go(gradient, step)
        # TensorFlow rounds 1 - 0.999 ** step to single precision: a relative 3e-5 of the first steps.
        np.testing.assert_allclose(walk.parameters - before, expected - before, rtol=1e-4, atol=5e-7)
        for slot, expected_slot, slot_before in zip(walk.slots, expected_slots, slots_before, strict=True):
            rounding = 6e-7 * (np.abs(slot_before) + np.abs(expected_slot))  # of the sum's two terms
            assert (np.abs(slot - expected_slot) <= rounding).all()


@optimizers
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_a_whole_path_stays_tensorflows_path(name: str, epsilon: float) -> None:
    walk = Walk(name, epsilon=epsilon)
    path, path_slots = tf.constant(START), tuple(tf.constant(slot) for slot in walk.slots)
    for step, gradient in enumerate(GRADIENTS, start=1):
        path, path_slots = OPTIMIZERS[name].update(
            path, path_slots, tf.constant(gradient), tf.constant(step, tf.float32), 0.01, epsilon
        )
        walk.go(gradient, step)
    assert np.median(np.abs(walk.parameters - START)) > 1e-3
    np.testing.assert_allclose(walk.parameters, path, rtol=1e-4, atol=2e-5)


@optimizers
def test_a_gradient_is_only_read_and_taken_half_is_half_the_gradient(name: str) -> None:
    walk, halved = Walk(name), Walk(name)
    for step, gradient in enumerate(GRADIENTS, start=1):
        kept = gradient.copy()
        walk.go(gradient, step, scale=0.5)
        np.testing.assert_array_equal(gradient, kept)
        halved.go((0.5 * gradient).astype(np.float32), step)
    np.testing.assert_allclose(walk.parameters, halved.parameters, rtol=1e-5, atol=1e-6)
    for slot, other in zip(walk.slots, halved.slots, strict=True):
        np.testing.assert_allclose(slot, other, rtol=1e-5, atol=1e-12)


@optimizers
def test_a_zero_gradient_from_the_start_moves_nothing(name: str) -> None:
    walk = Walk(name)
    walk.go(np.zeros(SIZE, np.float32), 1)
    np.testing.assert_array_equal(walk.parameters, START)


@pytest.mark.parametrize("max_norm", [0.1, 10.0, 1e6])
def test_the_clipping_factor_is_tensorflows(max_norm: float) -> None:
    for gradient in GRADIENTS[:5]:
        norm = LIBRARY.finite_norm(pointer(gradient), SIZE, SIZE)
        assert norm == pytest.approx(np.linalg.norm(gradient.astype(np.float64)), rel=1e-6)
        expected = clip_by_global_norm(tf.constant(gradient), tf.norm(gradient), max_norm)
        np.testing.assert_allclose(gradient * np.float32(LIBRARY.clipping_factor(norm, max_norm)), expected, rtol=1e-5)


def test_clipping_takes_3_4_to_norm_1_and_leaves_shorter_gradients_alone() -> None:
    norm = LIBRARY.finite_norm(pointer(np.array([3.0, 4.0], np.float32)), 2, 2)
    assert (norm, LIBRARY.clipping_factor(norm, 1.0)) == (5.0, 0.2)
    assert [LIBRARY.clipping_factor(norm, bound) for bound in (5.0, 10.0, 0.0)] == [1.0, 1.0, 1.0]
    assert LIBRARY.clipping_factor(0.0, 10.0) == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("place", [0, 63, 64, 127, 129, 130, 133])
def test_a_number_that_is_not_finite_or_too_large_to_square_is_found_anywhere(bad: float, place: int) -> None:
    vector = np.ones(134, np.float32)
    assert LIBRARY.finite_norm(pointer(vector), 130, 134) == np.sqrt(130)
    vector[place] = bad
    assert np.isnan(LIBRARY.finite_norm(pointer(vector), 130, 134))


def test_a_large_gradients_norm_is_found_in_blocks() -> None:
    parameters, length = 300_001, 300_004
    vector = np.random.default_rng(0).normal(size=length).astype(np.float32)
    norm = LIBRARY.finite_norm(pointer(vector), parameters, length)
    assert norm == pytest.approx(np.linalg.norm(vector[:parameters].astype(np.float64)), rel=1e-6)
    for place in (0, 16_383, 16_384, parameters - 1, parameters, length - 1):
        bad = vector.copy()
        bad[place] = np.inf
        assert np.isnan(LIBRARY.finite_norm(pointer(bad), parameters, length))


class Rows(ctypes.Structure):
    """Twin of `struct q_learning_rows`, which Python never passes."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("action", "target", "weight", "priority"))


class Made(NamedTuple):
    """What `q_learning_gradient` writes, into memory that was not zero."""

    gradient: np.ndarray  # [N, A]
    statistics: np.ndarray  # loss, |td|, Q
    priority: np.ndarray  # [N]


def _q_gradient(
    q: np.ndarray,
    actions: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    scale: float,
    huber: bool,
    library: ctypes.CDLL = LIBRARY,
) -> Made:
    made = Made(np.full_like(q, np.nan), np.full(3, np.nan, np.float32), np.full_like(targets, np.nan))
    function = library.q_learning_gradient
    function.restype = None
    function.argtypes = (
        *(ctypes.c_void_p, Rows, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_float, ctypes.c_int),
        *(ctypes.c_void_p, ctypes.c_void_p),
    )
    rows = Rows(*(pointer(array) for array in (actions, targets, weights, made.priority)))
    function(pointer(q), rows, *q.shape, scale, huber, pointer(made.gradient), pointer(made.statistics))
    return made


@losses
def test_the_gradient_the_statistics_and_the_priorities_are_tensorflows(name: str) -> None:
    rows = len(TD_ERRORS)
    q = _RNG.normal(size=(rows, 3)).astype(np.float32)
    actions, weights = (np.arange(rows) % 3).astype(np.int32), np.linspace(0, 2, rows).astype(np.float32)
    chosen = q[np.arange(rows), actions]
    targets = chosen + TD_ERRORS
    variable = tf.Variable(q)
    with tf.GradientTape() as tape:
        q_a = tf.gather(variable, actions, batch_dims=1)
        total = tf.reduce_sum(weights * LOSSES[name](targets - q_a)) / 20.0
    made = _q_gradient(q, actions, targets, weights, 1 / 20, name == "huber")
    expected = tf.convert_to_tensor(tape.gradient(total, variable))
    np.testing.assert_allclose(made.gradient, expected, rtol=1e-5, atol=1e-6)
    statistics = [total, np.abs(targets - chosen).sum() / 20, chosen.sum() / 20]
    np.testing.assert_allclose(made.statistics, statistics, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(made.priority, np.abs(targets - chosen))


@losses
def test_a_td_error_that_is_no_number_shows_in_loss_and_gradient(name: str) -> None:
    q, actions = np.zeros((2, 2), np.float32), np.array([0, 1], np.int32)
    targets, weights = np.array([1.0, np.nan], np.float32), np.ones(2, np.float32)
    made = _q_gradient(q, actions, targets, weights, 1.0, name == "huber")
    assert np.isnan(made.gradient[1, 1])
    assert np.isnan(made.statistics[:2]).all()


def _targets(chooser: np.ndarray, q_t: np.ndarray, r_t: np.ndarray, discount_t: np.ndarray) -> np.ndarray:
    out = np.full_like(r_t, np.nan)
    places = [pointer(array) for array in (chooser, q_t, r_t, discount_t)]
    LIBRARY.q_learning_targets(*places, *q_t.shape, pointer(out))
    return out


@pytest.mark.parametrize("num_actions", [1, 2, 7])
def test_targets_are_tensorflows(num_actions: int) -> None:
    q_t, online = _RNG.normal(size=(2, 50, num_actions)).astype(np.float32)
    r_t, discount_t = _RNG.normal(size=50).astype(np.float32), (0.9 * (np.arange(50) % 3 > 0)).astype(np.float32)
    r, discount, q, selector = map(tf.constant, (r_t, discount_t, q_t, online))
    single, double = td_targets(r, discount, q), double_q_targets(r, discount, q, selector)
    np.testing.assert_allclose(_targets(q_t, q_t, r_t, discount_t), single, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(_targets(online, q_t, r_t, discount_t), double, rtol=1e-5, atol=1e-6)


def test_a_target_takes_the_first_of_equals_and_never_hides_a_nan() -> None:
    ones = np.ones(3, np.float32)
    chooser = np.array([[2, 2, 1], [np.nan, 5, 5], [5, np.nan, 6]], np.float32)
    q_t = np.array([[10, 20, 30], [np.nan, 1, 1], [1, np.nan, 1]], np.float32)
    np.testing.assert_array_equal(_targets(chooser, q_t, ones, ones), [11, np.nan, np.nan])


@pytest.mark.parametrize("count", [1, 4, 5, 7, 40])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 5, 31, 32, 33])
def test_rows_end_in_ones(width: int, count: int) -> None:
    rows = _RNG.normal(size=(count, width)).astype(np.float32)
    out = np.full((count + 1, width + 1), np.nan, np.float32)
    LIBRARY.rows_with_ones(pointer(rows), *rows.shape, 0.5, pointer(out))
    np.testing.assert_array_equal(out[:count], np.hstack([0.5 * rows, np.ones((count, 1))]))
    assert np.isnan(out[count]).all()


@pytest.fixture(params=["-mno-avx", "-mavx2", "-O0"])
def other_kernels(request: pytest.FixtureRequest, compile_kernels: Callable[..., None], tmp_path: Path) -> ctypes.CDLL:
    """Returns the kernels compiled for one narrower instruction set, and without any optimisation."""
    library = tmp_path / "narrow.so"
    compile_kernels(FOLDER, library, "-UWIDEST", "-DWIDEST=", request.param)
    return load_library(library)


def test_every_instruction_set_gives_the_same_bits(other_kernels: ctypes.CDLL) -> None:
    """Ranks on unlike hosts apply the same sum and must stay equal."""
    for name in OPTIMIZERS:
        mine, theirs = Walk(name), Walk(name, other_kernels)
        for step, gradient in enumerate(GRADIENTS, start=1):
            norms = [library.finite_norm(pointer(gradient), SIZE, SIZE) for library in (LIBRARY, other_kernels)]
            assert norms[0] == norms[1]
            mine.go(gradient, step, LIBRARY.clipping_factor(norms[0], 10.0))
            theirs.go(gradient, step, LIBRARY.clipping_factor(norms[1], 10.0))
        np.testing.assert_array_equal(mine.parameters, theirs.parameters)
        for slot, other in zip(mine.slots, theirs.slots, strict=True):
            np.testing.assert_array_equal(slot, other)
    q = _RNG.normal(size=(77, 3)).astype(np.float32)
    actions, targets = (np.arange(77) % 3).astype(np.int32), _RNG.normal(size=77).astype(np.float32)
    for huber in (False, True):
        results = [
            _q_gradient(q, actions, targets, targets**2, 0.1, huber, library) for library in (LIBRARY, other_kernels)
        ]
        for one, another in zip(*results, strict=True):
            np.testing.assert_array_equal(one, another)


def test_a_library_of_another_source_is_refused(
    compile_kernels: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in FOLDER.glob("*.[ch]"):
        copy = tmp_path / source.name
        copy.write_text(source.read_text() + "/* changed */\n")
    compile_kernels(tmp_path, tmp_path / "changed.so", "-O0")
    with pytest.raises(UserError, match=r"changed\.so was compiled from other sources than .*make setup"):
        load_library(tmp_path / "changed.so")
    monkeypatch.setattr(library_module, "LIBRARY", "_no_such_library")
    with pytest.raises(UserError, match=r"is missing on this host.*make setup"):
        load_library()


def test_c_takes_no_array_that_it_would_misread() -> None:
    for array in (np.zeros(3), np.zeros((4, 4), np.float32)[:, 1:], np.zeros((2, 3), np.float32).T):
        with pytest.raises(ValueError, match="contiguous float32"):
            pointer(array)


@pytest.mark.parametrize(
    ("name", "twin"), list(zip(STRUCTS, (_Struct, BoundOptimizer, _Learner, _Batches, _Report), strict=True))
)
def test_a_struct_takes_as_many_bytes_in_c_as_in_python(name: str, twin: type[ctypes.Structure]) -> None:
    check_struct(LIBRARY, name, twin)

    class Longer(twin):  # type: ignore[misc, valid-type]
        _fields_ = (("more", ctypes.c_double),)

    with pytest.raises(AssertionError, match=f"struct {name}"):
        check_struct(LIBRARY, name, Longer)
