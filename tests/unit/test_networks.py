"""Laws of the Q-networks: shapes and counts of the papers, and the NumPy forward pass against Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hvd_dqn.learner.graph_network import GraphNetwork
from hvd_dqn.native.numpy_mlp import NumpyMLP, multiply
from hvd_dqn.networks.build import build_network, choose_backend, choose_kind

from hvd_dqn.config import Config
from hvd_dqn.errors import UserError
from hvd_dqn.learner.action_values import make_action_values
from hvd_dqn.learner.parameters import ParameterLayout

from .agents import KERNELS, PASSES, PLAIN_RULE, make_learner

FLOAT, BYTE, INT = np.dtype(np.float32), np.dtype(np.uint8), np.dtype(np.int32)


def _mlp(
    shape: tuple[int, ...], dtype: np.dtype, categories: int = 0, hidden: tuple[int, ...] = (64, 64)
) -> keras.Model:
    return build_network("mlp", shape, dtype, categories, 2, hidden, seed=3)


def test_default_mlp_is_two_layers_of_64() -> None:
    network = _mlp((4,), FLOAT, hidden=Config().network.hidden_sizes)
    shapes = [tuple(v.shape) for v in network.trainable_variables]
    assert shapes == [(4, 64), (64,), (64, 64), (64,), (64, 2), (2,)]


def test_mlp_is_relu_inside_and_linear_at_its_end() -> None:
    network = _mlp((4,), FLOAT)
    activations = [layer.activation.__name__ for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    assert activations == ["relu", "relu", "linear"]


@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [(128, 121, 84), (257, 64, 256), (64, 257, 256), (2048, 121, 84), (97, 121, 84), (1, 3, 2)],
    ids=["two blocks", "uneven blocks", "too few rows for blocks", "many blocks", "just one too many", "one row"],
)
def test_blocks_of_rows_give_the_whole_product(rows: int, inner: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows, inner)), rng.normal(size=(inner, columns))
    wide = np.full((rows, columns + 1), 7.0, np.float32)
    multiply(a.astype(np.float32), b.astype(np.float32), out=wide[:, :-1])
    np.testing.assert_allclose(wide[:, :-1], a @ b, rtol=1e-4, atol=1e-4)
    assert (wide[:, -1] == 7.0).all()


@pytest.mark.parametrize("num_actions", [4, 18])
def test_cnn_has_the_papers_parameter_count(num_actions: int) -> None:
    """Mnih et al. (2015): 8x8x4x32+32, 4x4x32x64+64, 3x3x64x64+64, 7x7x64=3136x512+512, 512xA+A."""
    network = build_network("cnn", (4, 84, 84), BYTE, 0, num_actions, (64, 64), 0)
    expected = 8224 + 32832 + 36928 + (3136 * 512 + 512) + (512 * num_actions + num_actions)
    assert network.count_params() == expected
    assert ParameterLayout(network).total == expected
    assert tuple(network.output_shape) == (None, num_actions)


def test_channels_first_and_channels_last_give_the_same_network() -> None:
    first = build_network("cnn", (4, 84, 84), BYTE, 0, 6, (), 0)
    last = build_network("cnn", (84, 84, 4), BYTE, 0, 6, (), 0)
    assert [tuple(v.shape) for v in first.trainable_variables] == [tuple(v.shape) for v in last.trainable_variables]
    images = np.random.default_rng(0).integers(256, size=(2, 4, 84, 84)).astype(np.uint8)
    np.testing.assert_allclose(first(images), last(images.transpose(0, 2, 3, 1)), rtol=1e-4, atol=1e-5)


def test_a_grey_image_has_one_channel() -> None:
    network = build_network("cnn", (84, 84), BYTE, 0, 3, (), 0)
    assert tuple(network.trainable_variables[0].shape) == (8, 8, 1, 32)
    assert network(np.zeros((2, 84, 84), np.uint8)).shape == (2, 3)


def test_bytes_are_scaled_to_one() -> None:
    """A linear network on 255 sees 1: Q = the sum of the kernel's rows."""
    network = _mlp((3,), BYTE, hidden=())
    np.testing.assert_allclose(
        network(np.full((1, 3), 255, np.uint8))[0], np.asarray(network.trainable_variables[0]).sum(axis=0), rtol=1e-5
    )


def test_a_category_is_one_hot() -> None:
    """A linear network's Q of category s is row s of its kernel (plus a bias of 0)."""
    network = _mlp((), INT, categories=5, hidden=())
    np.testing.assert_allclose(network(np.arange(5, dtype=np.int32)), np.asarray(network.trainable_variables[0]))


def test_same_seed_gives_the_same_weights_and_another_seed_does_not() -> None:
    weights = [
        ParameterLayout(n).flatten_variables(n)
        for n in (build_network("mlp", (4,), FLOAT, 0, 2, (8,), seed) for seed in (1, 1, 2))
    ]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_layers_of_equal_shape_start_different() -> None:
    network = build_network("mlp", (8,), FLOAT, 0, 8, (8, 8), 0)
    kernels = [np.asarray(v) for v in network.trainable_variables if len(v.shape) == 2]
    assert (kernels[0] != kernels[1]).any()
    assert (kernels[1] != kernels[2]).any()


_OBSERVATIONS: dict[str, tuple[tuple[int, ...], np.dtype, int, np.ndarray]] = {
    "vector": ((4,), FLOAT, 0, np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)),
    "matrix": ((3, 2), FLOAT, 0, np.random.default_rng(1).normal(size=(7, 3, 2)).astype(np.float32)),
    "bytes": ((5,), BYTE, 0, np.random.default_rng(2).integers(256, size=(7, 5)).astype(np.uint8)),
    "integers": ((5,), INT, 0, np.random.default_rng(3).integers(-50, 50, size=(7, 5)).astype(np.int32)),
    "category": ((), INT, 9, np.array([0, 8, 3, 3, 1, 2, 7], np.int32)),
}


@pytest.mark.parametrize("hidden", [(), (6,), (16, 8)])
@pytest.mark.parametrize("kind", _OBSERVATIONS)
@pytest.mark.parametrize("passes", PASSES)
def test_forward_in_host_memory_equals_keras_forward(
    passes: type[NumpyMLP], kind: str, hidden: tuple[int, ...]
) -> None:
    shape, dtype, categories, s = _OBSERVATIONS[kind]
    network = _mlp(shape, dtype, categories, hidden)
    layout = ParameterLayout(network)
    vector = layout.flatten_variables(network) + np.float32(0.05)  # biases that are not 0
    for variable, values in zip(network.trainable_variables, layout.views(vector).values(), strict=True):
        variable.assign(values)
    mlp = passes(KERNELS, layout, categories, dtype)
    q = mlp.forward(mlp.affine(vector), mlp.features(s), mlp.activations(len(s), backward=False))
    assert q.dtype == np.float32
    np.testing.assert_allclose(q, network(s), rtol=1e-4, atol=1e-5)


def test_layout_goes_there_and_back() -> None:
    network = _mlp((4,), FLOAT)
    layout = ParameterLayout(network)
    vector = np.arange(layout.total, dtype=np.float32)
    for part, view, variable in zip(
        layout.split(tf.constant(vector)), layout.views(vector).values(), network.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(part, view)
        variable.assign(part)
    np.testing.assert_array_equal(layout.flatten_variables(network), vector)
    assert len(set(layout.names)) == len(layout.names)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_acting_values_follow_the_parameters_loaded_last(kind: str) -> None:
    """Both ways of acting (NumPy and TensorFlow) show a change of weights only after `load`."""
    shape, dtype = ((4,), FLOAT) if kind == "mlp" else ((1, 40, 40), BYTE)
    network = build_network(kind, shape, dtype, 0, 3, (8,), 0)
    learner = make_learner(network, 2)
    mlp = PASSES[-1](KERNELS, learner.layout, 0, dtype) if kind == "mlp" else None
    values = make_action_values(learner.online, mlp, GraphNetwork(network, **PLAIN_RULE), follow=False)
    s = np.full((2, *shape), 3, dtype)
    before = values(s)
    np.testing.assert_allclose(before, network(s), rtol=1e-4, atol=1e-5)
    learner.online = learner.online * 2.0
    np.testing.assert_array_equal(values(s), before)
    values.load(learner.online)
    assert np.abs(values(s) - before).max() > 1e-4


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((4,), FLOAT, "mlp"),
        ((128,), BYTE, "mlp"),
        ((84, 84, 3), FLOAT, "mlp"),
        ((), INT, "mlp"),
        ((4, 84, 84), BYTE, "cnn"),
        ((84, 84), BYTE, "cnn"),
        ((36, 36, 3), BYTE, "cnn"),
    ],
)
def test_auto_takes_the_cnn_for_integer_images_alone(shape: tuple[int, ...], dtype: np.dtype, kind: str) -> None:
    assert choose_kind("auto", shape, dtype) == kind


def test_a_cnn_can_be_asked_for_on_float_images_and_an_mlp_on_bytes() -> None:
    assert choose_kind("cnn", (84, 84, 3), FLOAT) == "cnn"
    assert choose_kind("mlp", (84, 84, 3), BYTE) == "mlp"


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [("cnn", (4,), FLOAT), ("cnn", (), INT), ("cnn", (35, 84), BYTE), ("auto", (10, 10, 3), BYTE)],
)
def test_observations_that_are_no_image_for_the_cnn_are_refused_with_the_remedy(
    kind: str, shape: tuple[int, ...], dtype: np.dtype
) -> None:
    with pytest.raises(UserError, match="use --network mlp"):
        choose_kind(kind, shape, dtype)


def test_the_smallest_cnn_image_works() -> None:
    assert build_network("cnn", (36, 36, 3), BYTE, 0, 2, (), 0).output_shape == (None, 2)


@pytest.mark.parametrize(
    ("asked", "kind", "on_gpu", "threads", "compiled", "chosen"),
    [
        ("auto", "mlp", False, 1, True, "numpy"),
        ("auto", "mlp", False, 2, False, "numpy"),
        ("auto", "mlp", True, 1, True, "tensorflow"),
        ("auto", "cnn", False, 1, True, "numpy"),
        ("auto", "cnn", False, 2, True, "mixed"),
        ("auto", "cnn", False, 1, False, "mixed"),
        ("auto", "cnn", True, 1, True, "tensorflow"),
        ("numpy", "mlp", False, 1, True, "numpy"),
        ("numpy", "mlp", True, 1, False, "numpy"),
        ("numpy", "cnn", True, 2, True, "numpy"),
        ("tensorflow", "mlp", False, 1, True, "tensorflow"),
        ("tensorflow", "cnn", False, 1, True, "tensorflow"),
        ("mixed", "mlp", False, 1, True, "mixed"),
        ("mixed", "cnn", True, 1, True, "mixed"),
    ],
)
def test_updates_stay_off_tensorflow_on_the_cpu_where_that_is_faster(
    asked: str, kind: str, on_gpu: bool, threads: int, compiled: bool, chosen: str
) -> None:
    assert choose_backend(asked, kind, on_gpu=on_gpu, threads=threads, compiled=compiled) == chosen


def test_numpy_is_refused_for_a_cnn_without_compiled_passes_with_the_remedy() -> None:
    with pytest.raises(UserError, match="with AVX2 and FMA only: use --backend auto or mixed"):
        choose_backend("numpy", "cnn", on_gpu=False, compiled=False)
