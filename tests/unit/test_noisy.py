"""Laws of noisy networks: the means without noise, the paper's deviations with it, the same on all ranks."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.learner.action_values import TensorFlowActionValues
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.noisy import NoisyNetwork
from hvd_dqn.networks import impala, mlp, nature
from hvd_dqn.networks.spec import NetworkSpec

from .learners import BYTE, network_spec


def _model() -> keras.Model:
    return mlp.build(network_spec(hidden_sizes=(16,)))


def _noise(update: int, first_row: int = 0) -> Noise:
    return Noise(7, tf.constant(update), first_row, 2, 8)


def test_without_noise_it_is_the_network_of_its_means() -> None:
    model, s = _model(), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    noisy, plain = NoisyNetwork(model), FlatNetwork(model)
    np.testing.assert_array_equal(noisy(noisy.initial_parameters(), s), plain(plain.initial_parameters(), s))


@pytest.mark.parametrize("build", [nature.build, impala.build], ids=["cnn", "impala"])
def test_every_dense_weight_has_a_deviation_and_no_convolution_has(build: Callable[[NetworkSpec], keras.Model]) -> None:
    network = NoisyNetwork(build(network_spec((36, 36, 1), BYTE, dueling=True)))
    sigmas = {name.removesuffix("_sigma") for name in network.layout.names if name.endswith("_sigma")}
    assert sigmas == {
        name for name in network.layout.names if name.startswith(("dense", "value")) and "sigma" not in name
    }
    assert len(network.initial_parameters()) == network.layout.total


def test_the_noise_has_the_papers_deviation() -> None:
    """Var[f(x) f(y)] = E|x| E|y| = 2 / pi, times sigma_0^2 / inputs for a kernel; E|y| = sqrt(2 / pi) for a bias."""
    network = NoisyNetwork(_model())
    parts = network.layout.split(tf.constant(network.initial_parameters()))
    means = network.weights(parts)
    draws = [network.weights(parts, _noise(update)) for update in range(400)]
    kernel = np.stack([draw[0] - means[0] for draw in draws])
    bias = np.stack([draw[1] - means[1] for draw in draws])
    assert np.square(kernel).mean() == pytest.approx(0.25 / 4 * 2 / np.pi, rel=0.1)
    assert np.square(bias).mean() == pytest.approx(0.25 / 4 * np.sqrt(2 / np.pi), rel=0.1)
    assert abs(kernel.mean()) < 0.02


def test_all_ranks_draw_the_same_noise_and_every_update_its_own() -> None:
    network = NoisyNetwork(_model())
    parts = network.layout.split(tf.constant(network.initial_parameters()))
    first = network.weights(parts, _noise(1))[0]
    np.testing.assert_array_equal(first, network.weights(parts, _noise(1, first_row=6))[0])
    assert np.abs(first - network.weights(parts, _noise(2))[0]).max() > 1e-3


def test_online_and_target_network_have_noises_of_their_own() -> None:
    network, noise = NoisyNetwork(_model()), _noise(1)
    parts = network.layout.split(tf.constant(network.initial_parameters()))
    assert np.abs(network.weights(parts, noise)[0] - network.weights(parts, noise)[0]).max() > 1e-3


def test_acting_draws_by_number_and_a_greedy_evaluation_does_not() -> None:
    network = NoisyNetwork(_model())
    values = TensorFlowActionValues(network, DQN("mse", False), network.initial_parameters(), noise_seed=3)
    s = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(values(s), network(network.initial_parameters(), s))
    np.testing.assert_array_equal(values(s, 10), values(s, 10))
    assert np.abs(values(s, 10) - values(s, 11)).max() > 1e-3
    assert np.abs(values(s, 10) - values(s)).max() > 1e-3
    values(s, 10**12)  # beyond 32 bits


def test_the_gradient_reaches_the_deviations() -> None:
    network = NoisyNetwork(_model())
    parts = network.layout.split(tf.constant(network.initial_parameters()))
    with tf.GradientTape() as tape:
        tape.watch(parts)
        loss = tf.reduce_sum(network.forward(network.weights(list(parts), _noise(1)), np.ones((2, 4), np.float32)))
    gradients = tape.gradient(loss, parts)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
