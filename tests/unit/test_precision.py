"""Layers in half precision: weights stay float32, gradients agree, and a scaled loss keeps the small ones."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from hvd_dqn.learner.gradient import Compilation
from hvd_dqn.networks import mlp as mlp_module
from hvd_dqn.networks import nature
from hvd_dqn.transition import Transition

from .learners import BYTE, Exchange, learn, make_learner, network_spec, random_batches

HALVES = ["bfloat16", "float16"]
ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half a unit in the last place, relative."""


def mlp(precision: str) -> keras.Model:
    """Returns an MLP on four numbers."""
    return mlp_module.build(network_spec(hidden_sizes=(32, 32), precision=precision))


def cnn(precision: str) -> keras.Model:
    """Returns the Nature CNN on small images."""
    return nature.build(network_spec((36, 36, 2), BYTE, precision=precision))


def gradient(
    network: keras.Model, batches: Transition, loss_scale: float = 1.0, global_batch_size: int = 8
) -> np.ndarray:
    """Returns the gradient [P] of the first batch, the online network being the target too."""
    exchange = Exchange()
    learn(
        make_learner(network, 8, exchange, compilation=scaled(loss_scale), global_batch_size=global_batch_size), batches
    )
    return exchange.gradient()


def scaled(loss_scale: float) -> Compilation:
    """Returns a plain graph with this scale of the loss."""
    return Compilation(jit_compile=False, loss_scale=loss_scale)


def images(seed: int = 0) -> Transition:
    """Returns one batch of eight transitions between random images."""
    rng = np.random.default_rng(seed)
    s_tm1, s_t = (rng.integers(0, 256, (1, 8, 36, 36, 2), dtype=np.uint8) for _ in range(2))
    return random_batches(1, 8, seed)._replace(s_tm1=s_tm1, s_t=s_t)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("build", [mlp, cnn])
def test_layers_compute_in_half_and_weights_and_values_are_float32(
    build: Callable[[str], keras.Model], precision: str
) -> None:
    network = build(precision)
    layers = [layer for layer in network.layers if layer.trainable_variables]
    assert [layer.compute_dtype for layer in layers] == [*[precision] * (len(layers) - 1), "float32"]
    assert {variable.dtype for variable in network.trainable_variables} == {"float32"}
    assert network.output.dtype == "float32"


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize(("build", "batches"), [(mlp, random_batches(1, 8)), (cnn, images())], ids=["mlp", "cnn"])
def test_gradients_agree_with_those_of_float32_as_far_as_half_precision_can_tell(
    build: Callable[[str], keras.Model], batches: Transition, precision: str
) -> None:
    """The last layer's differ by the rounding, so it was there; below it a unit near 0 may also fall silent."""
    exact, rounded = gradient(build("float32"), batches), gradient(build(precision), batches, 1024.0)
    (*_, output) = (layer for layer in build("float32").layers if isinstance(layer, keras.layers.Dense))
    last = slice(-output.kernel.numpy().size - 3, -3)
    error = np.linalg.norm(rounded[last] - exact[last]) / np.linalg.norm(exact[last])
    assert 0.05 * ROUNDING[precision] < error < 10 * ROUNDING[precision]
    assert rounded @ exact > 0.98 * np.linalg.norm(rounded) * np.linalg.norm(exact)


def test_a_power_of_two_as_scale_changes_no_bit_where_nothing_vanishes() -> None:
    batches = random_batches(1, 8)
    np.testing.assert_array_equal(gradient(mlp("float32"), batches, 2.0**10), gradient(mlp("float32"), batches))


def test_a_scaled_loss_keeps_gradients_that_vanish_in_float16() -> None:
    """A huge global batch makes a transition's part of the mean smaller than float16's smallest number."""
    batches, huge = random_batches(1, 8), 2**27
    exact = gradient(mlp("float32"), batches, global_batch_size=huge)
    first = slice(0, 4 * 32)  # the first layer's kernel, whose gradient has passed through all layers
    assert np.count_nonzero(exact[first]) > 64
    assert np.count_nonzero(gradient(mlp("float16"), batches, global_batch_size=huge)[first]) == 0
    scaled = gradient(mlp("float16"), batches, 2.0**27, huge)
    assert np.linalg.norm(scaled - exact) < 0.02 * np.linalg.norm(exact)


def test_a_scale_that_overflows_float16_is_a_gradient_that_is_not_finite_and_is_not_applied() -> None:
    learner = make_learner(mlp("float16"), 8, compilation=scaled(2.0**40))
    before = np.array(learner.online)
    report = learn(learner, random_batches(2, 8))
    assert (report.finite, report.steps) == (False, 0)
    np.testing.assert_array_equal(np.array(learner.online), before)


def test_steps_in_bfloat16_are_those_of_float32_roughly() -> None:
    rounded, exact = (make_learner(mlp(precision), 8) for precision in ("bfloat16", "float32"))
    before = np.array(exact.online)
    for learner in (rounded, exact):
        assert learn(learner, random_batches(4, 8)).finite
    moved, error = np.array(exact.online) - before, np.array(rounded.online) - np.array(exact.online)
    assert 0 < np.linalg.norm(error) < 0.1 * np.linalg.norm(moved)
