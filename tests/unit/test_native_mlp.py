"""The MLP's compiled passes: exact to rounding, and the same bits however they are computed."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.library import pointer
from hvd_dqn.native.mlp import NativeActionValues, NativeMLP
from hvd_dqn.networks.mlp import build

from .learners import BYTE, FLOAT, INT, network_spec
from .native_learners import LIBRARY

pytestmark = pytest.mark.skipif(not LIBRARY.products_supported(), reason="the native learner takes AVX2 and FMA")

AT_THE_EDGES = [
    (4, 2),
    (1, 1, 1),
    (5, 15, 16, 17),
    (3, 47, 48, 49),
    (7, 84, 120, 84, 3),
    (64, 31, 33, 18),
    (400, 97, 6),
    (600, 512, 3),
]
"""Widths just below, at and above a whole number of vectors and of blocks, from the observation to the actions; of the
last, operands and results are computed in parts that stay in the cache."""
SOME_ROWS = [1, 2, 5, 6, 7, 8, 9, 31, 128]

widths_and_rows = st.tuples(st.lists(st.integers(1, 70), min_size=2, max_size=5).map(tuple), st.integers(1, 40))


class Network:
    """Parameters of these widths, and passes of up to `rows` rows."""

    def __init__(self, library: ctypes.CDLL, widths: tuple[int, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        layout = _layout(widths)
        self.mlp, self.total, self.widths = NativeMLP(library, layout, 0, FLOAT, 1), layout.total, widths
        self.vector = self.rng.normal(size=self.total).astype(np.float32)

    def matrices(self) -> list[np.ndarray]:
        """Returns kernel and bias of each layer as one matrix [in + 1, out]."""
        shapes = [(before + 1, after) for before, after in itertools.pairwise(self.widths)]
        parts = np.split(self.vector, np.cumsum([rows * columns for rows, columns in shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def inputs(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns observations [N, in] and gradients with respect to the Q-values [N, A]."""
        s = self.rng.normal(size=(rows, self.widths[0])).astype(np.float32)
        return s, self.rng.normal(size=(rows, self.widths[-1])).astype(np.float32)

    def passes(self, s: np.ndarray, dq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns Q-values [N, A] and the flat gradient, behind which nothing may have been written."""
        mlp, rows = self.mlp, len(s)
        hidden, _, last, dq_memory, _ = mlp._memory
        x = np.empty((rows, mlp.inputs + 1), np.float32)
        mlp.features(s, x)
        mlp.library.mlp_forward(mlp.pointer, pointer(self.vector), pointer(x), rows)
        q = last[:rows].copy()
        dq_memory[:rows] = dq
        gradient = np.full(self.total + 64, np.nan, np.float32)
        mlp.library.mlp_backward(mlp.pointer, pointer(self.vector), pointer(x), rows, pointer(gradient))
        assert np.isnan(gradient[self.total :]).all()
        for values in hidden:
            np.testing.assert_array_equal(values[:, -1], 1.0)
        return q, gradient[: self.total]

    def outputs(self, s: np.ndarray) -> np.ndarray:
        """Returns Q-values of any number of rows."""
        return NativeActionValues(self.mlp, self.vector, follow=True)(s)


def _layout(widths: tuple[int, ...]) -> ParameterLayout:
    observation, *hidden, actions = widths
    return ParameterLayout(build(network_spec((observation,), num_actions=actions, hidden_sizes=tuple(hidden))))


def _in_double(network: Network, s: np.ndarray, dq: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns Q-values and gradient in double precision, and for each number the size of the terms in its sum."""
    ones = np.ones((len(s), 1))
    inputs, sizes = [np.hstack([s, ones])], [np.hstack([np.abs(s), ones])]
    weights = [layer.astype(np.float64) for layer in network.matrices()]
    for layer in weights:
        out, size = inputs[-1] @ layer, sizes[-1] @ np.abs(layer)
        inputs.append(np.hstack([np.maximum(out, 0), ones]))
        sizes.append(np.hstack([size, ones]))
    delta, delta_size = dq.astype(np.float64), np.abs(dq).astype(np.float64)
    gradients: list[np.ndarray] = []
    gradient_sizes: list[np.ndarray] = []
    for depth in range(len(weights) - 1, -1, -1):
        gradients.insert(0, inputs[depth].T @ delta)
        gradient_sizes.insert(0, sizes[depth].T @ delta_size)
        delta = (delta @ weights[depth].T * (inputs[depth] > 0))[:, :-1]
        delta_size = (delta_size @ np.abs(weights[depth]).T)[:, :-1]
    flat, flat_size = (np.concatenate([part.ravel() for part in parts]) for parts in (gradients, gradient_sizes))
    return out, size, flat, flat_size


def _assert_exact(network: Network, rows: int) -> None:
    s, dq = network.inputs(rows)
    q, gradient = network.passes(s, dq)
    exact_q, q_size, exact, size = _in_double(network, s, dq)
    np.testing.assert_array_less(np.abs(q - exact_q), 2e-6 * q_size + 1e-30)
    assert (np.abs(gradient - exact) <= 4e-6 * size + 1e-30).all()


@pytest.mark.parametrize("widths", AT_THE_EDGES)
def test_passes_are_exact_to_rounding(widths: tuple[int, ...], narrow_kernels: ctypes.CDLL) -> None:
    for library in (LIBRARY, narrow_kernels):
        for rows in SOME_ROWS:
            _assert_exact(Network(library, widths, seed=rows), rows)


@settings(max_examples=150)
@given(widths_and_rows)
def test_passes_of_any_shape_are_exact_to_rounding(shape: tuple[tuple[int, ...], int]) -> None:
    widths, rows = shape
    _assert_exact(Network(LIBRARY, widths), rows)


@pytest.mark.parametrize("widths", AT_THE_EDGES)
def test_every_instruction_set_gives_the_same_bits(widths: tuple[int, ...], narrow_kernels: ctypes.CDLL) -> None:
    for rows in SOME_ROWS:
        wide = Network(LIBRARY, widths)
        s, dq = wide.inputs(rows)
        for one, other in zip(wide.passes(s, dq), Network(narrow_kernels, widths).passes(s, dq), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("widths", AT_THE_EDGES)
def test_a_row_has_the_same_bits_in_any_company(widths: tuple[int, ...]) -> None:
    """A state's Q-values do not depend on how many environments a rank has, nor on its share of a batch."""
    network = Network(LIBRARY, widths)
    s, dq = network.inputs(40)
    together, _ = network.passes(s, dq)
    for first, last in [(0, 1), (3, 10), (7, 40), (39, 40)]:
        alone, _ = network.passes(s[first:last].copy(), dq[first:last].copy())
        np.testing.assert_array_equal(alone, together[first:last])


@pytest.mark.parametrize("rows", [1, 511, 512, 513, 1_100])
def test_values_of_any_number_of_rows_are_those_of_passes_in_turn(rows: int) -> None:
    network = Network(LIBRARY, (4, 33, 3))
    s, dq = network.inputs(rows)
    in_turn = [network.passes(s[i : i + 100].copy(), dq[i : i + 100])[0] for i in range(0, rows, 100)]
    np.testing.assert_array_equal(network.outputs(s), np.concatenate(in_turn))


def test_relu_and_its_gradient_treat_special_numbers_as_the_kernels_do() -> None:
    """NaN stays to be seen in Q-values and gradients; 0 has no gradient."""
    network = Network(LIBRARY, (1, 1, 1))
    network.vector[:] = [1.0, 0.0, 1.0, 0.0]  # q(s) = max(s, 0)
    for s, q, slope in [(2.0, 2.0, 1.0), (-2.0, 0.0, 0.0), (0.0, 0.0, 0.0), (np.inf, np.inf, 1.0)]:
        value, gradient = network.passes(np.array([[s]], np.float32), np.ones((1, 1), np.float32))
        assert (value.item(), gradient[1]) == (q, slope)
    value, gradient = network.passes(np.array([[np.nan]], np.float32), np.ones((1, 1), np.float32))
    assert np.isnan(value).all()
    assert np.isnan(gradient).any()


_OBSERVATIONS: dict[str, tuple[tuple[int, ...], np.dtype, int, np.ndarray]] = {
    "vector": ((4,), FLOAT, 0, np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)),
    "matrix": ((3, 2), FLOAT, 0, np.random.default_rng(1).normal(size=(7, 3, 2)).astype(np.float32)),
    "bytes": ((5,), BYTE, 0, np.random.default_rng(2).integers(256, size=(7, 5)).astype(np.uint8)),
    "integers": ((5,), INT, 0, np.random.default_rng(3).integers(-50, 50, size=(7, 5)).astype(np.int32)),
    "category": ((), INT, 9, np.array([0, 8, 3, 3, 1, 2, 7], np.int32)),
}


@pytest.mark.parametrize("hidden", [(), (6,), (16, 8)])
@pytest.mark.parametrize("kind", _OBSERVATIONS)
def test_action_values_are_those_of_the_keras_network(kind: str, hidden: tuple[int, ...]) -> None:
    shape, dtype, categories, s = _OBSERVATIONS[kind]
    network = build(network_spec(shape, dtype, num_categories=categories, hidden_sizes=hidden))
    layout = ParameterLayout(network)
    vector = layout.flatten_variables(network) + np.float32(0.05)  # biases that are not 0
    for variable, values in zip(network.trainable_variables, layout.views(vector).values(), strict=True):
        variable.assign(values)
    q = NativeActionValues(NativeMLP(LIBRARY, layout, categories, dtype, 1), vector, follow=False)(s)
    assert q.dtype == np.float32
    np.testing.assert_allclose(q, network(s), rtol=1e-4, atol=1e-5)
