"""The in-place optimizers and losses of NumPy against those of TensorFlow, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.maths.losses import LOSSES
from hvd_dqn.maths.numpy_losses import NUMPY_LOSSES
from hvd_dqn.maths.numpy_optimizers import NUMPY_UPDATES, clipping_factor
from hvd_dqn.maths.optimizers import OPTIMIZERS, clip_by_global_norm

SIZE = 40
STEPS = 60
_RNG = np.random.default_rng(1)
START = _RNG.normal(size=SIZE).astype(np.float32)
SCALES = 10.0 ** np.linspace(-4, 2, SIZE)
"""Gradients from far below to far above the optimizers' epsilons."""
GRADIENTS = (_RNG.normal(size=(STEPS, SIZE)) * SCALES + 0.3 * SCALES).astype(np.float32)
TD_ERRORS = np.array([-3.0, -1.0, -0.4, 0.0, 0.7, 1.0, 2.5, 1000.0], np.float32)

optimizers = pytest.mark.parametrize("name", OPTIMIZERS)
losses = pytest.mark.parametrize("name", LOSSES)


def _start(name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    return START.copy(), [np.zeros(SIZE, np.float32) for _ in OPTIMIZERS[name].slot_names]


def test_numpy_has_the_optimizers_and_losses_that_tensorflow_has() -> None:
    assert NUMPY_UPDATES.keys() == OPTIMIZERS.keys()
    assert NUMPY_LOSSES.keys() == LOSSES.keys()


@optimizers
@pytest.mark.parametrize("first_step", [1, 1_000_000])
def test_each_step_is_tensorflows_step(name: str, first_step: int) -> None:
    """Parameters and slots, from one state at every step, so that rounding does not add up; late in a run too."""
    parameters, slots = _start(name)
    for step, gradient in enumerate(GRADIENTS, start=first_step):
        expected, expected_slots = OPTIMIZERS[name].update(
            tf.constant(parameters),
            tuple(tf.constant(slot) for slot in slots),
            tf.constant(gradient),
            tf.constant(step, tf.float32),
            0.01,
        )
        before, slots_before = parameters.copy(), [slot.copy() for slot in slots]
        NUMPY_UPDATES[name](parameters, slots, gradient.copy(), 1.0, step, 0.01, np.full(SIZE, np.nan, np.float32))
        assert parameters.dtype == np.float32
        # TensorFlow rounds 1 - 0.999 ** step to single precision: a relative 3e-5 of the first steps.
        np.testing.assert_allclose(parameters - before, expected - before, rtol=1e-4, atol=3e-7)
        for slot, expected_slot, slot_before in zip(slots, expected_slots, slots_before, strict=True):
            rounding = 6e-7 * (np.abs(slot_before) + np.abs(expected_slot))  # of the sum's two terms
            assert (np.abs(slot - expected_slot) <= rounding).all()


@optimizers
def test_a_whole_path_stays_tensorflows_path(name: str) -> None:
    parameters, slots = _start(name)
    path, path_slots = tf.constant(parameters), tuple(tf.constant(slot) for slot in slots)
    for step, gradient in enumerate(GRADIENTS, start=1):
        path, path_slots = OPTIMIZERS[name].update(
            path, path_slots, tf.constant(gradient), tf.constant(step, tf.float32), 0.01
        )
        NUMPY_UPDATES[name](parameters, slots, gradient.copy(), 1.0, step, 0.01, np.empty(SIZE, np.float32))
    assert np.abs(parameters - START).min() > 1e-5
    np.testing.assert_allclose(parameters, path, rtol=1e-4, atol=1e-5)


@optimizers
def test_an_update_in_blocks_is_the_update_of_the_whole(name: str) -> None:
    """Bit for bit: an optimizer looks at each parameter alone."""
    whole, whole_slots = _start(name)
    blocks, block_slots = _start(name)
    scratch = np.empty(SIZE, np.float32)
    for step, gradient in enumerate(GRADIENTS, start=1):
        NUMPY_UPDATES[name](whole, whole_slots, gradient.copy(), 1.0, step, 0.01, scratch)
        for part in (slice(0, 7), slice(7, 30), slice(30, SIZE)):
            slots = [slot[part] for slot in block_slots]
            NUMPY_UPDATES[name](blocks[part], slots, gradient[part].copy(), 1.0, step, 0.01, scratch[part])
    np.testing.assert_array_equal(blocks, whole)
    for slot, other in zip(block_slots, whole_slots, strict=True):
        np.testing.assert_array_equal(slot, other)


@optimizers
def test_a_gradient_is_only_read(name: str) -> None:
    parameters, slots = _start(name)
    gradient = GRADIENTS[0].copy()
    NUMPY_UPDATES[name](parameters, slots, gradient, 0.5, 1, 0.01, np.empty(SIZE, np.float32))
    np.testing.assert_array_equal(gradient, GRADIENTS[0])


@optimizers
def test_a_gradient_taken_half_is_half_the_gradient(name: str) -> None:
    parameters, slots = _start(name)
    halved, halved_slots = _start(name)
    for step, gradient in enumerate(GRADIENTS, start=1):
        NUMPY_UPDATES[name](parameters, slots, gradient, 0.5, step, 0.01, np.empty(SIZE, np.float32))
        NUMPY_UPDATES[name](halved, halved_slots, 0.5 * gradient, 1.0, step, 0.01, np.empty(SIZE, np.float32))
    np.testing.assert_allclose(parameters, halved, rtol=1e-5, atol=1e-6)
    for slot, other in zip(slots, halved_slots, strict=True):
        np.testing.assert_allclose(slot, other, rtol=1e-5, atol=1e-12)


@optimizers
def test_a_zero_gradient_from_the_start_moves_nothing(name: str) -> None:
    parameters, slots = _start(name)
    NUMPY_UPDATES[name](parameters, slots, np.zeros(SIZE, np.float32), 1.0, 1, 0.1, np.empty(SIZE, np.float32))
    np.testing.assert_array_equal(parameters, START)


@pytest.mark.parametrize("max_norm", [0.1, 10.0, 1e6])
def test_the_clipping_factor_is_tensorflows(max_norm: float) -> None:
    for gradient in GRADIENTS[:5]:
        expected = clip_by_global_norm(tf.constant(gradient), tf.norm(gradient), max_norm)
        np.testing.assert_allclose(gradient * np.float32(clipping_factor(gradient, max_norm)), expected, rtol=1e-5)


def test_clipping_takes_3_4_to_norm_1_and_leaves_shorter_gradients_alone() -> None:
    assert clipping_factor(np.array([3.0, 4.0], np.float32), 1.0) == pytest.approx(0.2)
    assert clipping_factor(np.array([3.0, 4.0], np.float32), 5.0) == 1.0
    assert clipping_factor(np.array([3.0, 4.0], np.float32), 10.0) == 1.0
    assert clipping_factor(np.zeros(2, np.float32), 10.0) == 1.0


@losses
def test_losses_and_their_slopes_are_tensorflows(name: str) -> None:
    td_error = tf.constant(TD_ERRORS)
    with tf.GradientTape() as tape:
        tape.watch(td_error)
        expected = LOSSES[name](td_error)
    value = np.full_like(TD_ERRORS, np.nan)
    slope = NUMPY_LOSSES[name](TD_ERRORS, value)
    assert slope.dtype == np.float32
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, tape.gradient(expected, td_error), rtol=1e-6)


@losses
def test_a_slope_is_the_losses_difference_quotient(name: str) -> None:
    """In double precision, between and beyond the places where the Huber loss changes its form."""
    td_error, step = np.linspace(-3.0, 3.0, 50), 1e-6
    above, below = np.empty_like(td_error), np.empty_like(td_error)
    NUMPY_LOSSES[name](td_error + step, above)
    NUMPY_LOSSES[name](td_error - step, below)
    slope = NUMPY_LOSSES[name](td_error, np.empty_like(td_error))
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-6, atol=1e-6)
