"""Laws of the Q-networks: shapes and counts of the papers, and the flat layout of their weights."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.config import Config
from hvd_dqn.errors import UserError
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.networks import mlp, nature
from hvd_dqn.networks.spec import NetworkSpec, choose_network, flattens_images

from .learners import BYTE, FLOAT, INT, network_spec


def _mlp(
    shape: tuple[int, ...], dtype: np.dtype, categories: int = 0, hidden: tuple[int, ...] = (64, 64)
) -> keras.Model:
    return mlp.build(network_spec(shape, dtype, num_categories=categories, num_actions=2, hidden_sizes=hidden, seed=3))


def _cnn(shape: tuple[int, ...], num_actions: int = 3) -> keras.Model:
    return nature.build(network_spec(shape, BYTE, num_actions=num_actions))


def test_default_mlp_is_two_layers_of_64() -> None:
    network = _mlp((4,), FLOAT, hidden=Config().network.hidden_sizes)
    shapes = [tuple(v.shape) for v in network.trainable_variables]
    assert shapes == [(4, 64), (64,), (64, 64), (64,), (64, 2), (2,)]


def test_mlp_is_relu_inside_and_linear_at_its_end() -> None:
    network = _mlp((4,), FLOAT)
    activations = [layer.activation.__name__ for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    assert activations == ["relu", "relu", "linear"]


@pytest.mark.parametrize("num_actions", [4, 18])
def test_cnn_has_the_papers_parameter_count(num_actions: int) -> None:
    """Mnih et al. (2015): 8x8x4x32+32, 4x4x32x64+64, 3x3x64x64+64, 7x7x64=3136x512+512, 512xA+A."""
    network = _cnn((84, 84, 4), num_actions)
    expected = 8224 + 32832 + 36928 + (3136 * 512 + 512) + (512 * num_actions + num_actions)
    assert network.count_params() == expected
    assert ParameterLayout(network).total == expected
    assert tuple(network.output_shape) == (None, num_actions)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: _mlp((4,), FLOAT), ["dense", "dense_1", "dense_2"]),
        (lambda: _cnn((84, 84)), ["scaled_conv2d", "scaled_conv2d_1", "scaled_conv2d_2", "dense", "dense_1"]),
    ],
)
def test_weights_have_the_same_names_in_every_network_of_a_process(
    build: Callable[[], keras.Model], names: list[str]
) -> None:
    for _ in range(2):
        assert ParameterLayout(build()).names == [f"{name}/{part}" for name in names for part in ("kernel", "bias")]


def test_only_a_convolutional_network_has_convolutions() -> None:
    assert FlatNetwork(_cnn((84, 84))).has_convolutions
    assert not FlatNetwork(_mlp((4,), FLOAT)).has_convolutions


def test_a_grey_image_has_one_channel() -> None:
    network = _cnn((84, 84))
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
        ParameterLayout(n).flatten_variables(n) for n in (mlp.build(network_spec(seed=seed)) for seed in (1, 1, 2))
    ]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_layers_of_equal_shape_start_different() -> None:
    network = mlp.build(network_spec((8,), num_actions=8, hidden_sizes=(8, 8)))
    kernels = [np.asarray(v) for v in network.trainable_variables if len(v.shape) == 2]
    assert (kernels[0] != kernels[1]).any()
    assert (kernels[1] != kernels[2]).any()


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


@pytest.mark.parametrize("build", [mlp.build, nature.build], ids=["mlp", "cnn"])
@pytest.mark.parametrize("outputs_per_action", [1, 5])
def test_an_action_may_have_several_outputs(
    build: Callable[[NetworkSpec], keras.Model], outputs_per_action: int
) -> None:
    """The head gives [B, A], or [B, A, Z] for atoms and quantiles."""
    shape, dtype = ((4,), FLOAT) if build is mlp.build else ((36, 36, 1), BYTE)
    network = build(network_spec(shape, dtype, outputs_per_action=outputs_per_action))
    expected = (2, 3) if outputs_per_action == 1 else (2, 3, 5)
    assert network(np.zeros((2, *shape), dtype)).shape == expected


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((4,), FLOAT, "mlp"),
        ((128,), BYTE, "mlp"),
        ((84, 84, 3), FLOAT, "mlp"),
        ((), INT, "mlp"),
        ((84, 84, 4), BYTE, "cnn"),
        ((84, 84), BYTE, "cnn"),
        ((36, 36, 3), BYTE, "cnn"),
    ],
)
def test_auto_takes_the_cnn_for_integer_images_alone(shape: tuple[int, ...], dtype: np.dtype, kind: str) -> None:
    assert choose_network("auto", shape, dtype) == kind


def test_a_cnn_can_be_asked_for_on_float_images_and_an_mlp_on_bytes() -> None:
    assert choose_network("cnn", (84, 84, 3), FLOAT) == "cnn"
    assert choose_network("mlp", (84, 84, 3), BYTE) == "mlp"


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [("cnn", (4,), FLOAT), ("cnn", (), INT), ("cnn", (35, 84), BYTE), ("auto", (10, 10, 3), BYTE)],
)
def test_observations_that_are_no_image_for_the_cnn_are_refused_with_the_remedy(
    kind: str, shape: tuple[int, ...], dtype: np.dtype
) -> None:
    with pytest.raises(UserError, match="use --network mlp"):
        choose_network(kind, shape, dtype)


def test_the_smallest_cnn_image_works() -> None:
    assert _cnn((36, 36, 3), 2).output_shape == (None, 2)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "flattened"),
    [
        *(("auto", (84, 84, 4), FLOAT, True), ("mlp", (84, 84, 4), FLOAT, False), ("auto", (84,), FLOAT, False)),
        *(("auto", (84, 84, 4), BYTE, False), ("cnn", (84, 84, 4), FLOAT, False)),
    ],
)
def test_images_of_floats_that_auto_flattens_are_noticed(
    name: str, shape: tuple, dtype: np.dtype, flattened: bool
) -> None:
    assert flattens_images(choose_network(name, shape, dtype), name, shape) is flattened
