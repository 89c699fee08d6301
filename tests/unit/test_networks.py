"""Laws of the Q-networks: shapes and counts of the papers, and the flat layout of their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.config import Config
from hvd_dqn.errors import UserError
from hvd_dqn.learner.flat_network import DEFAULT_FRACTIONS, FlatNetwork
from hvd_dqn.learner.noisy import NoisyNetwork
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.networks import impala, minatar, mlp, nature
from hvd_dqn.networks.spec import NetworkSpec, choose_network, flattens_images
from hvd_dqn.registry import NETWORKS, load

from .learners import BYTE, FLOAT, INT, network_spec


def _mlp(
    shape: tuple[int, ...], dtype: np.dtype, categories: int = 0, hidden: tuple[int, ...] = (64, 64)
) -> keras.Model:
    return mlp.build(network_spec(shape, dtype, num_categories=categories, num_actions=2, hidden_sizes=hidden, seed=3))


def _cnn(shape: tuple[int, ...], num_actions: int = 3) -> keras.Model:
    return nature.build(network_spec(shape, BYTE, num_actions=num_actions))


def _minatar(
    shape: tuple[int, ...], num_actions: int = 3, dtype: np.dtype = BYTE, largest_integer: int = 255
) -> keras.Model:
    return minatar.build(network_spec(shape, dtype, num_actions=num_actions, largest_integer=largest_integer))


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


def _named(*layers: str) -> list[str]:
    return [f"{layer}/{part}" for layer in layers for part in ("kernel", "bias")]


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: ParameterLayout(_mlp((4,), FLOAT)), _named("dense", "dense_1", "dense_2")),
        (
            lambda: ParameterLayout(_cnn((84, 84))),
            _named("scaled_conv2d", "scaled_conv2d_1", "scaled_conv2d_2", "dense", "dense_1"),
        ),
        (lambda: ParameterLayout(_minatar((10, 10, 4))), _named("scaled_conv2d", "dense", "dense_1")),
        (
            lambda: ParameterLayout(mlp.build(network_spec(dueling=True))),
            _named("value", "dense", "value_1", "dense_1"),
        ),
        (
            lambda: NoisyNetwork(mlp.build(network_spec())).layout,
            [f"{name}{part}" for part in ("", "_sigma") for name in _named("dense", "dense_1")],
        ),
    ],
    ids=["mlp", "cnn", "minatar", "dueling", "noisy"],
)
def test_weights_have_the_same_names_in_every_network_of_a_process(
    build: Callable[[], ParameterLayout], names: list[str]
) -> None:
    for _ in range(2):
        assert build().names == names


def test_minatars_network_has_the_papers_parameter_count() -> None:
    """Young and Tian (2019) for Breakout's 4 channels and 6 actions: 3x3x4x16+16, 8x8x16=1024x128+128, 128x6+6."""
    network = _minatar((10, 10, 4), 6)
    assert network.count_params() == 3 * 3 * 4 * 16 + 16 + 1024 * 128 + 128 + 128 * 6 + 6
    assert tuple(network.output_shape) == (None, 6)
    assert FlatNetwork(network).has_convolutions


@pytest.mark.parametrize(("dtype", "largest"), [(BYTE, 1), (BYTE, 10), (INT, 255), (np.dtype(np.bool_), 255)])
def test_a_grids_integers_are_scaled_by_the_largest_one(dtype: np.dtype, largest: int) -> None:
    """The largest integer, True and a real 1 are the same to the network."""
    shape = (7, 7, 3)
    high = np.full((1, *shape), 1 if dtype == np.bool_ else largest, dtype)
    outputs = _minatar(shape, 2, dtype, largest)(high)
    np.testing.assert_allclose(outputs, _minatar(shape, 2, FLOAT)(np.ones((1, *shape), np.float32)), rtol=1e-5)


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


@pytest.mark.parametrize("build", [load(NETWORKS, name) for name in NETWORKS], ids=NETWORKS)
@pytest.mark.parametrize("outputs_per_action", [1, 5])
def test_an_action_may_have_several_outputs(
    build: Callable[[NetworkSpec], keras.Model], outputs_per_action: int
) -> None:
    """The head gives [B, A], or [B, A, Z] for atoms and quantiles."""
    shape, dtype = ((4,), FLOAT) if build is mlp.build else ((36, 36, 1), BYTE)
    network = build(network_spec(shape, dtype, outputs_per_action=outputs_per_action))
    expected = (2, 3) if outputs_per_action == 1 else (2, 3, 5)
    assert network(np.zeros((2, *shape), dtype)).shape == expected


Builder = tuple[Callable[[NetworkSpec], keras.Model], tuple[int, ...], np.dtype]
BUILDERS: dict[str, Builder] = {
    "mlp": (mlp.build, (4,), FLOAT),
    "cnn": (nature.build, (36, 36, 1), BYTE),
    "minatar": (minatar.build, (10, 10, 4), BYTE),
    "impala": (impala.build, (24, 24, 1), BYTE),
    "impala, normed": (lambda spec: impala.build(spec._replace(spectral_norm=True)), (24, 24, 1), BYTE),
}
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dueling": {"dueling": True},
    "atoms": {"outputs_per_action": 5},
    "dueling atoms": {"dueling": True, "outputs_per_action": 5},
    "joints": {"joints": 2},
    "fractions": {"takes_fractions": True},
    "dueling fractions": {"dueling": True, "takes_fractions": True},
    "noisy": {},
}


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", BUILDERS)
def test_the_first_outputs_are_small_beside_the_observations(kind: str, head: str, scale: float) -> None:
    """Wherever the observations are: with He's weights in the last layer they are as large, or larger."""
    build, shape, dtype = BUILDERS[kind]
    rng = np.random.default_rng(0)
    s = np.abs(rng.normal(size=(200, *shape)) * scale).astype(dtype)
    made = NoisyNetwork if head == "noisy" else FlatNetwork
    network = made(build(network_spec(shape, dtype, hidden_sizes=(64, 64), **HEADS[head])))
    outputs = network(network.initial_parameters(), s).numpy()
    size = np.sqrt(np.square(s / 255.0 if dtype == BYTE else s).mean())
    assert np.sqrt(np.square(outputs).mean()) <= 0.25 * size + 1e-6


@pytest.mark.parametrize("kind", BUILDERS)
def test_of_two_streams_one_is_the_mean_over_the_actions(kind: str) -> None:
    """Wang et al. (2016), equation 9: without the value stream's last layer the actions' mean is zero."""
    build, shape, dtype = BUILDERS[kind]
    network = build(network_spec(shape, dtype, dueling=True))
    s = np.random.default_rng(0).integers(0, 200, (5, *shape)).astype(dtype)
    values = [layer for layer in network.layers if layer.name.startswith("value")]
    last = values[-1]
    assert len(values) == 2
    assert last.units == 1
    before = network(s).numpy()
    last.bias.assign(last.bias + 3.0)
    np.testing.assert_allclose(network(s), before + 3.0, rtol=1e-5, atol=1e-5)
    last.kernel.assign(tf.zeros_like(last.kernel))
    last.bias.assign(tf.zeros_like(last.bias))
    np.testing.assert_allclose(network(s).numpy().mean(axis=1), 0.0, atol=1e-5)


@pytest.mark.parametrize("kind", BUILDERS)
def test_each_joint_has_outputs_of_its_own_whose_advantages_have_their_own_mean(kind: str) -> None:
    """Tavakoli et al. (2018), equation 1: Q_j = V + A_j less the mean of A_j, so all joints have one mean."""
    build, shape, dtype = BUILDERS[kind]
    s = np.random.default_rng(0).integers(1, 200, (5, *shape)).astype(dtype)
    for dueling in (False, True):
        values = build(network_spec(shape, dtype, joints=2, dueling=dueling))(s).numpy()
        assert values.shape == (5, 2, 3)
        means = values.mean(axis=2)
        assert (np.abs(means[:, 0] - means[:, 1]).max() < 1e-5) == dueling


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("kind", BUILDERS)
def test_outputs_at_fractions_depend_on_their_own_fraction_alone(kind: str, dueling: bool) -> None:
    build, shape, dtype = BUILDERS[kind]
    network = FlatNetwork(build(network_spec(shape, dtype, takes_fractions=True, dueling=dueling)))
    s = np.random.default_rng(0).integers(1, 200, (2, *shape)).astype(dtype)
    parameters = network.initial_parameters()
    both = network(parameters, s, tf.constant([[0.1, 0.7], [0.7, 0.1]])).numpy()  # [B, A, N]
    one = network(parameters, s, tf.constant([[0.7], [0.7]])).numpy()
    assert both.shape == (2, 3, 2)
    np.testing.assert_allclose(both[0, :, 1], one[0, :, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both[1, :, 0], one[1, :, 0], rtol=1e-4, atol=1e-5)
    assert np.abs(both[0, :, 0] - both[0, :, 1]).max() > 1e-6
    assert network(parameters, s).shape == (2, 3, DEFAULT_FRACTIONS)


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
        ((35, 84), BYTE, "minatar"),
        ((10, 10, 4), np.dtype(np.bool_), "minatar"),
        ((7, 7, 3), BYTE, "minatar"),
        ((2, 7, 3), BYTE, "mlp"),
        ((4, 12), FLOAT, "mlp"),
    ],
)
def test_auto_takes_a_convolutional_network_by_size_for_images_of_integers_and_flags(
    shape: tuple[int, ...], dtype: np.dtype, kind: str
) -> None:
    assert choose_network("auto", shape, dtype) == kind


def test_a_cnn_can_be_asked_for_on_float_images_and_an_mlp_on_bytes() -> None:
    assert choose_network("cnn", (84, 84, 3), FLOAT) == "cnn"
    assert choose_network("mlp", (84, 84, 3), BYTE) == "mlp"


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "remedy"),
    [
        ("cnn", (4,), FLOAT, "use --network mlp"),
        ("minatar", (), INT, "use --network mlp"),
        ("impala", (4,), FLOAT, "use --network mlp"),
        ("cnn", (35, 84), BYTE, "use --network auto"),
        ("minatar", (10, 2, 3), BYTE, "use --network auto"),
    ],
)
def test_observations_that_are_no_image_for_the_network_are_refused_with_the_remedy(
    kind: str, shape: tuple[int, ...], dtype: np.dtype, remedy: str
) -> None:
    with pytest.raises(UserError, match=remedy):
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
