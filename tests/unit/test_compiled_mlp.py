"""The MLP's compiled passes: exact to rounding, and the same bits however they are computed."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.compiled_mlp import CompiledMLP, make_mlp
from hvd_dqn.native.numpy_mlp import NumpyMLP, Rows
from hvd_dqn.networks.build import build_network

from .agents import KERNELS

FLOAT = np.dtype(np.float32)

pytestmark = pytest.mark.skipif(not KERNELS.products_supported(), reason="the compiled passes take AVX2 and FMA")

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
    """Parameters of these widths, and a pass of some rows."""

    def __init__(self, library: ctypes.CDLL, widths: tuple[int, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.mlp = CompiledMLP(library, _layout(widths), 0, FLOAT)
        self.widths = widths
        self.vector = self.rng.normal(size=self.mlp.total).astype(np.float32)
        self.layers = self.mlp.affine(self.vector)

    def inputs(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns observations [N, in] and gradients with respect to the Q-values [N, A]."""
        s = self.rng.normal(size=(rows, self.widths[0])).astype(np.float32)
        return s, self.rng.normal(size=(rows, self.widths[-1])).astype(np.float32)

    def passes(self, s: np.ndarray, dq: np.ndarray, memory_rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns Q-values [N, A] and the flat gradient, behind which nothing may have been written."""
        memory, x = self.mlp.activations(memory_rows or len(s), backward=True), self.mlp.features(s)
        q = self.mlp.forward(self.layers, x, memory).copy()
        gradient = np.full(self.mlp.total + 64, np.nan, np.float32)
        self.mlp.backward(self.layers, x, memory, Rows(dq), self.mlp.affine(gradient))
        assert np.isnan(gradient[self.mlp.total :]).all()
        for hidden in memory.hidden:
            np.testing.assert_array_equal(hidden[:, -1], 1.0)
        return q, gradient[: self.mlp.total]


def _layout(widths: tuple[int, ...]) -> ParameterLayout:
    observation, *hidden, actions = widths
    return ParameterLayout(build_network("mlp", (observation,), FLOAT, 0, actions, tuple(hidden), 0))


def _in_double(network: Network, s: np.ndarray, dq: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns Q-values and gradient in double precision, and for each number the size of the terms in its sum."""
    ones = np.ones((len(s), 1))
    inputs, sizes = [np.hstack([s, ones])], [np.hstack([np.abs(s), ones])]
    weights = [layer.astype(np.float64) for layer in network.layers.matrices]
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
    for library in (KERNELS, narrow_kernels):
        for rows in SOME_ROWS:
            _assert_exact(Network(library, widths, seed=rows), rows)


@settings(max_examples=150)
@given(widths_and_rows)
def test_passes_of_any_shape_are_exact_to_rounding(shape: tuple[tuple[int, ...], int]) -> None:
    widths, rows = shape
    _assert_exact(Network(KERNELS, widths), rows)


@pytest.mark.parametrize("widths", AT_THE_EDGES)
def test_every_instruction_set_gives_the_same_bits(widths: tuple[int, ...], narrow_kernels: ctypes.CDLL) -> None:
    for rows in SOME_ROWS:
        wide = Network(KERNELS, widths)
        s, dq = wide.inputs(rows)
        for one, other in zip(wide.passes(s, dq), Network(narrow_kernels, widths).passes(s, dq), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("widths", AT_THE_EDGES)
def test_a_row_has_the_same_bits_in_any_company(widths: tuple[int, ...]) -> None:
    """A state's Q-values do not depend on how many environments a rank has, nor on its share of a batch."""
    network = Network(KERNELS, widths)
    s, dq = network.inputs(40)
    together, _ = network.passes(s, dq)
    for first, last in [(0, 1), (3, 10), (7, 40), (39, 40)]:
        alone, _ = network.passes(s[first:last].copy(), dq[first:last].copy(), memory_rows=40)
        np.testing.assert_array_equal(alone, together[first:last])


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 40])
def test_values_of_any_number_of_rows_are_those_of_passes_in_turn(rows: int) -> None:
    network = Network(KERNELS, (4, 33, 3))
    s, dq = network.inputs(rows)
    memory = network.mlp.activations(8, backward=False)
    values = network.mlp.values(network.layers, network.mlp.features(s), memory)
    np.testing.assert_array_equal(values, network.passes(s, dq)[0])
    plain = NumpyMLP(KERNELS, _layout((4, 33, 3)), 0, FLOAT)
    in_parts = plain.values(network.layers, plain.features(s), plain.activations(8, backward=False))
    np.testing.assert_allclose(in_parts, values, rtol=1e-4, atol=1e-5)


def test_relu_and_its_gradient_treat_special_numbers_as_the_kernels_do() -> None:
    """NaN stays to be seen in Q-values and gradients; 0 has no gradient."""
    network = Network(KERNELS, (1, 1, 1))
    network.vector[:] = [1.0, 0.0, 1.0, 0.0]  # q(s) = max(s, 0)
    for s, q, slope in [(2.0, 2.0, 1.0), (-2.0, 0.0, 0.0), (0.0, 0.0, 0.0), (np.inf, np.inf, 1.0)]:
        value, gradient = network.passes(np.array([[s]], np.float32), np.ones((1, 1), np.float32))
        assert (value.item(), gradient[1]) == (q, slope)
    value, gradient = network.passes(np.array([[np.nan]], np.float32), np.ones((1, 1), np.float32))
    assert np.isnan(value).all()
    assert np.isnan(gradient).any()


@pytest.mark.parametrize(
    ("widths", "threads", "compiled"),
    [((4, 120, 84, 2), 1, True), ((4, 120, 84, 2), 8, True), ((8, 512, 512, 4), 1, True), ((8, 512, 512, 4), 2, False)],
)
def test_large_layers_are_left_to_products_that_use_all_threads(
    widths: tuple[int, ...], threads: int, compiled: bool
) -> None:
    mlp = make_mlp(KERNELS, _layout(widths), 0, FLOAT, threads)
    assert type(mlp) is (CompiledMLP if compiled else NumpyMLP)


def test_a_processor_without_the_instructions_gets_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ones would give other bits."""
    monkeypatch.setattr(KERNELS, "products_supported", lambda: 0)
    assert type(make_mlp(KERNELS, _layout((4, 2)), 0, FLOAT, 1)) is NumpyMLP
