"""Laws of the residual network: the paper's counts, its normalisations, and no state but its weights."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.iqn import IQN
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.noisy import NoisyNetwork
from hvd_dqn.networks.impala import build, largest_singular_value

from .learners import BYTE, Exchange, learn, make_learner, network_spec, part_of, random_batches

SHAPE = (24, 24, 2)
NORMS: dict[str, dict[str, bool]] = {
    "plain": {},
    "layer norm": {"layer_norm": True},
    "spectral norm": {"spectral_norm": True},
    "both": {"layer_norm": True, "spectral_norm": True},
}


def _network(**changes: Any) -> keras.Model:
    return build(network_spec(SHAPE, BYTE, **changes))


def _images(rows: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, *SHAPE)).astype(np.uint8)


@pytest.mark.parametrize(("width", "num_actions"), [(1, 4), (1, 18), (2, 6)])
def test_it_has_the_papers_parameter_count(width: int, num_actions: int) -> None:
    """Espeholt et al. (2018), figure 3: a stem and four convolutions per section, 11 x 11 x 32 features, 256 units."""

    def convolution(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + outputs

    channels = [4, 16 * width, 32 * width, 32 * width]
    sections = sum(convolution(i, o) + 4 * convolution(o, o) for i, o in itertools.pairwise(channels))
    expected = sections + 11 * 11 * 32 * width * 256 + 256 + 256 * num_actions + num_actions
    network = build(network_spec((84, 84, 4), BYTE, num_actions=num_actions, impala_width=width))
    assert network.count_params() == expected
    if width == 1:
        assert expected == 97_744 + 991_488 + 257 * num_actions  # by hand
    assert tuple(network.output_shape) == (None, num_actions)


def test_layer_norm_adds_a_scale_and_a_shift_per_channel() -> None:
    """Behind three stems and the hidden layer: 16 + 32 + 32 channels and 256 units, in each stream."""
    assert _network(layer_norm=True).count_params() - _network().count_params() == 2 * (16 + 32 + 32 + 256)
    dueling = _network(layer_norm=True, dueling=True).count_params() - _network(dueling=True).count_params()
    assert dueling == 2 * (16 + 32 + 32 + 256 + 256)


@pytest.mark.parametrize("norms", NORMS)
def test_all_that_it_keeps_are_its_weights(norms: str) -> None:
    """So a checkpoint of the flat vector holds everything, and equal weights on all ranks give equal values."""
    network = _network(**NORMS[norms])
    assert network.non_trainable_variables == []
    flat = FlatNetwork(network)
    parameters = tf.constant(flat.initial_parameters())
    first = flat(parameters, _images()).numpy()
    np.testing.assert_array_equal(flat(parameters, _images()), first)
    np.testing.assert_array_equal(FlatNetwork(_network(**NORMS[norms]))(parameters, _images()), first)
    assert first.dtype == np.float32


@pytest.mark.parametrize("norms", NORMS)
def test_weights_have_names_of_their_own_and_every_one_is_trained(norms: str) -> None:
    network = FlatNetwork(_network(**NORMS[norms]))
    names = network.layout.names
    assert len(set(names)) == len(names)
    assert names == FlatNetwork(_network(**NORMS[norms])).layout.names
    parts = network.layout.split(tf.constant(network.initial_parameters()))
    with tf.GradientTape() as tape:
        tape.watch(parts)
        loss = tf.reduce_sum(tf.square(network.forward(parts, _images())))
    for name, gradient in zip(names, tape.gradient(loss, parts), strict=True):
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 0, name


@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (3, 3, 64, 64), (1, 1, 3, 7)])
@pytest.mark.parametrize("seed", range(3))
def test_the_spectral_norm_is_the_largest_singular_value(shape: tuple[int, ...], seed: int) -> None:
    kernel = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    expected = np.linalg.svd(kernel.reshape(-1, shape[-1]), compute_uv=False)[0]
    assert float(largest_singular_value(tf.constant(kernel))) == pytest.approx(expected, rel=0.01)


def test_the_spectral_norms_gradient_is_the_product_of_the_singular_vectors() -> None:
    """For a matrix whose largest singular value stands out: 3 u v^T plus a little."""
    rng = np.random.default_rng(0)
    u, v = (vector / np.linalg.norm(vector) for vector in (rng.normal(size=12), rng.normal(size=5)))
    matrix = (3.0 * np.outer(u, v) + 0.01 * rng.normal(size=(12, 5))).astype(np.float32)
    kernel = tf.constant(matrix.reshape(2, 2, 3, 5))
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        norm = largest_singular_value(kernel)
    left, _, right = np.linalg.svd(matrix)
    expected = np.outer(left[:, 0], right[0]).reshape(2, 2, 3, 5)
    np.testing.assert_allclose(tape.gradient(norm, kernel), expected, atol=1e-4)


@pytest.mark.parametrize("spectral_norm", [True, False])
def test_a_residual_kernels_size_does_not_matter_with_spectral_norm(spectral_norm: bool) -> None:
    network = _network(spectral_norm=spectral_norm)
    before = network(_images()).numpy()
    for layer in network.layers:
        if layer.name.startswith("residual"):
            layer.kernel.assign(3.0 * layer.kernel)
    assert np.allclose(network(_images()), before, rtol=1e-3, atol=1e-6) is spectral_norm


@pytest.mark.parametrize("layer_norm", [True, False])
def test_a_stems_size_does_not_matter_with_layer_norm(layer_norm: bool) -> None:
    network = _network(layer_norm=layer_norm)
    before = network(_images()).numpy()
    for layer in network.layers:
        if layer.name.startswith("scaled_conv2d"):
            layer.kernel.assign(100.0 * layer.kernel)
    after = network(_images()).numpy()
    assert bool(np.abs(after - before).max() < 0.1 * np.abs(before).max()) is layer_norm


def test_the_first_values_are_small_with_layer_norm_whatever_the_images() -> None:
    assert np.abs(_network(layer_norm=True)(_images(50))).max() < 0.5


def test_two_half_batches_add_up_to_the_full_batchs_gradient() -> None:
    """With all that a network may have: each rank computes the same norms from the same weights."""
    everything = {**NORMS["both"], "dueling": True, "takes_fractions": True}
    batches = random_batches(1, 4)._replace(s_tm1=_images(4)[None], s_t=_images(4)[None, ::-1].copy())

    def gradient(first_row: int, rows: int) -> np.ndarray:
        exchange = Exchange()
        learner = make_learner(
            _network(**everything),
            rows,
            exchange,
            algorithm=IQN(4, double=True),
            flatten=NoisyNetwork,
            first_row=first_row,
            global_batch_size=4,
        )
        assert learn(learner, part_of(batches, first_row, rows)).finite
        return exchange.gradient()

    whole = gradient(0, 4)
    scale = np.abs(whole).max()
    assert scale > 0
    np.testing.assert_allclose(gradient(0, 2) + gradient(2, 2), whole, atol=1e-5 * scale)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_its_layers_compute_in_half_precision(precision: str) -> None:
    network = _network(precision=precision, layer_norm=True, spectral_norm=True)
    computed = {layer.compute_dtype for layer in network.layers if layer.trainable_variables}
    assert computed == {precision, "float32"}  # the last layer
    exact = _network(layer_norm=True, spectral_norm=True)(_images()).numpy()
    assert np.abs(network(_images()) - exact).max() < 0.05
