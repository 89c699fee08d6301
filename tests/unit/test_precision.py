"""Layers in half precision: weights stay float32, gradients agree, and a scaled loss keeps the small ones."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from hvd_dqn.learner.graph_network import LEARNED_COLUMNS, GraphNetwork
from hvd_dqn.networks.build import build_network, choose_backend

from hvd_dqn.errors import UserError
from hvd_dqn.transition import Transition

from .agents import MakeLearner, make_learner, make_mixed_learner, random_batches

HALVES = ["bfloat16", "float16"]
ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half a unit in the last place, relative."""


def mlp(precision: str) -> keras.Model:
    """Returns an MLP on four numbers."""
    return build_network("mlp", (4,), np.dtype(np.float32), 0, 3, (32, 32), 0, precision)


def cnn(precision: str) -> keras.Model:
    """Returns the Nature CNN on small images."""
    return build_network("cnn", (36, 36, 2), np.dtype(np.uint8), 0, 3, (), 0, precision)


def gradient(
    network: keras.Model, batches: Transition, loss_scale: float = 1.0, global_batch_size: int = 8
) -> np.ndarray:
    """Returns the gradient [P] of the first batch, the online network being the target too."""
    passes = GraphNetwork(
        network, loss="mse", gamma=0.9, double_dqn=False, global_batch_size=global_batch_size, loss_scale=loss_scale
    )
    parameters = tf.constant(passes.layout.flatten_variables(network))
    columns = [tf.constant(getattr(batches, column)) for column in LEARNED_COLUMNS]
    q_t = passes.values_of_all(parameters, columns[-1])
    s_tm1, a_tm1, r_t, terminated, s_t = (column[0] for column in columns)
    vector = passes.local_vector(tf.zeros(0), parameters, s_tm1, a_tm1, r_t, terminated, s_t, q_t[0])
    assert vector.dtype == tf.float32
    return vector[: passes.layout.total].numpy()


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
    last = slice(-len(build("float32").layers[-1].kernel.numpy().ravel()) - 3, -3)
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


@pytest.mark.parametrize("make", [make_learner, make_mixed_learner], ids=["graph", "mixed"])
def test_a_scale_that_overflows_float16_is_a_gradient_that_is_not_finite_and_is_not_applied(make: MakeLearner) -> None:
    learner = make(mlp("float16"), 8, loss_scale=2.0**40)
    before = np.array(learner.online)
    report = learner.learn(random_batches(2, 8), np.zeros(2, np.float32))
    assert (report.finite, report.steps) == (False, 0)
    np.testing.assert_array_equal(np.array(learner.online), before)


@pytest.mark.parametrize("make", [make_learner, make_mixed_learner], ids=["graph", "mixed"])
def test_both_learners_take_the_same_steps_in_bfloat16(make: MakeLearner) -> None:
    learner = make(mlp("bfloat16"), 8)
    exact = make_learner(mlp("float32"), 8)
    for each in (learner, exact):
        assert each.learn(random_batches(4, 8), np.zeros(2, np.float32)).finite
    moved = np.array(exact.online) - mlp_parameters()
    assert np.linalg.norm(np.array(learner.online) - np.array(exact.online)) < 0.1 * np.linalg.norm(moved)


def mlp_parameters() -> np.ndarray:
    """Returns the parameters that `mlp` begins with."""
    return np.concatenate([np.asarray(variable).ravel() for variable in mlp("float32").trainable_variables])


@pytest.mark.parametrize(
    ("kind", "on_gpu", "chosen"), [("mlp", False, "mixed"), ("cnn", False, "mixed"), ("mlp", True, "tensorflow")]
)
def test_numpy_does_not_compute_in_half(kind: str, on_gpu: bool, chosen: str) -> None:
    assert choose_backend("auto", kind, on_gpu=on_gpu, precision="bfloat16") == chosen
    with pytest.raises(UserError, match="--backend numpy computes in float32 only, not in bfloat16"):
        choose_backend("numpy", kind, on_gpu=on_gpu, precision="bfloat16")
