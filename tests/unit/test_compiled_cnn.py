"""The Nature CNN's compiled passes: exact to rounding, and the same bits however they are computed."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.compiled_cnn import CompiledCNN
from hvd_dqn.native.numpy_mlp import Rows
from hvd_dqn.networks.build import NATURE_CONVOLUTIONS, build_network

from .agents import KERNELS

pytestmark = pytest.mark.skipif(not KERNELS.products_supported(), reason="the compiled passes take AVX2 and FMA")

ACTIONS = 5
IMAGES: dict[str, tuple[tuple[int, ...], Any]] = {
    "smallest": ((36, 36, 1), np.uint8),
    "no channels": ((40, 37), np.uint8),
    "colours": ((44, 52, 3), np.uint8),
    "channels first": ((4, 36, 41), np.uint8),
    "large integers": ((36, 36, 2), np.int32),
    "floats": ((37, 36, 5), np.float32),
    "Atari": ((84, 84, 4), np.uint8),
}
SOME_ROWS = [1, 6, 9]
"""One image, and just more than what a product or a forward pass takes at once."""


class Network:
    """Parameters of a CNN, and its passes."""

    def __init__(self, library: ctypes.CDLL, images: str) -> None:
        self.shape, dtype = IMAGES[images]
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng(3)
        layout = ParameterLayout(build_network("cnn", self.shape, self.dtype, 0, ACTIONS, (), 0))
        self.cnn = CompiledCNN(library, layout, self.shape, self.dtype)
        # As large as He's, so that the last layer's numbers are as large as the first's.
        scales = [np.sqrt(2 / max(np.prod(shape[:-1]), 1)) if len(shape) > 1 else 0.1 for shape in layout.shapes]
        self.weights = [self.rng.normal(scale=s, size=shape) for s, shape in zip(scales, layout.shapes, strict=True)]
        self.weights = [weight.astype(np.float32) for weight in self.weights]
        self.vector = np.concatenate([weight.ravel() for weight in self.weights])
        self.layers = self.cnn.affine(self.vector)

    def inputs(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns images [N, *shape] and gradients with respect to the Q-values [N, A]."""
        s = self.rng.integers(256, size=(rows, *self.shape)).astype(self.dtype)
        if self.dtype == np.float32:
            s = self.rng.normal(size=s.shape).astype(np.float32)
        return s, self.rng.normal(size=(rows, ACTIONS)).astype(np.float32)

    def values(self, s: np.ndarray, memory_rows: int | None = None) -> np.ndarray:
        """Returns Q-values, by passes with memory for so many rows, which no pass back follows."""
        memory = self.cnn.activations(memory_rows or len(s), backward=False)
        return self.cnn.values(self.layers, self.cnn.features(s), memory)

    def gradient(self, s: np.ndarray, dq: np.ndarray) -> np.ndarray:
        """Returns the flat gradient, behind which nothing may have been written."""
        memory, x = self.cnn.activations(len(s), backward=True), self.cnn.features(s)
        gradient = np.full(self.cnn.total + 64, np.nan, np.float32)
        for _ in range(2):  # the second pass must find nothing of the first
            self.cnn.forward(self.layers, x, memory)
            self.cnn.backward(self.layers, x, memory, Rows(dq), self.cnn.affine(gradient))
        assert np.isnan(gradient[self.cnn.total :]).all()
        return gradient[: self.cnn.total]

    def in_double(self, s: np.ndarray, dq: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Returns Q-values and the gradient by each weight, in double precision."""
        weights = [weight.astype(np.float64) for weight in self.weights]
        x = s.astype(np.float64) / (255 if np.issubdtype(self.dtype, np.integer) else 1)
        if len(self.shape) == 2:
            x = x[..., None]
        elif self.shape[0] < min(self.shape[1:]):
            x = np.moveaxis(x, 1, -1)
        tape = []
        for kernel, bias, (_, size, stride) in zip(weights[0:6:2], weights[1:6:2], NATURE_CONVOLUTIONS, strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(x, (1, size, size, x.shape[-1]))
            windows = windows[:, ::stride, ::stride, 0, 0]  # [N, y, x, h, w, c]
            out = np.einsum("nyxhwc,hwcf->nyxf", windows, kernel, optimize=True) + bias
            tape.append((x.shape, windows, out))
            x = np.maximum(out, 0)
        features = x.reshape(len(s), -1)
        hidden = np.maximum(features @ weights[6] + weights[7], 0)
        q = hidden @ weights[8] + weights[9]

        delta = dq.astype(np.float64)
        gradients = [hidden.T @ delta, delta.sum(0)]
        delta = delta @ weights[8].T * (hidden > 0)
        gradients = [features.T @ delta, delta.sum(0), *gradients]
        delta = (delta @ weights[6].T).reshape(x.shape)
        for depth in (2, 1, 0):
            shape, windows, out = tape[depth]
            size, stride = NATURE_CONVOLUTIONS[depth][1:]
            delta = delta * (out > 0)
            kernel_gradient = np.einsum("nyxhwc,nyxf->hwcf", windows, delta, optimize=True)
            gradients = [kernel_gradient, delta.sum((0, 1, 2)), *gradients]
            below = np.zeros(shape)
            for y, x_at in np.ndindex(delta.shape[1:3]):
                part = np.einsum("nf,hwcf->nhwc", delta[:, y, x_at], weights[2 * depth])
                below[:, y * stride : y * stride + size, x_at * stride : x_at * stride + size] += part
            delta = below
        return q, gradients


@pytest.mark.parametrize("images", IMAGES)
def test_passes_are_exact_to_rounding(images: str, narrow_kernels: ctypes.CDLL) -> None:
    for library in (KERNELS, narrow_kernels):
        network = Network(library, images)
        for rows in SOME_ROWS:
            s, dq = network.inputs(rows)
            exact_q, exact = network.in_double(s, dq)
            np.testing.assert_allclose(network.values(s), exact_q, rtol=0, atol=1e-5 * np.abs(exact_q).max())
            gradient, place = network.gradient(s, dq), 0
            for part in exact:
                mine = gradient[place : place + part.size].reshape(part.shape)
                np.testing.assert_allclose(mine, part, rtol=0, atol=3e-5 * np.abs(part).max())
                place += part.size


@pytest.mark.parametrize("images", IMAGES)
def test_every_instruction_set_gives_the_same_bits(images: str, narrow_kernels: ctypes.CDLL) -> None:
    wide, narrow = Network(KERNELS, images), Network(narrow_kernels, images)
    for rows in SOME_ROWS:
        s, dq = wide.inputs(rows)
        np.testing.assert_array_equal(wide.values(s), narrow.values(s))
        np.testing.assert_array_equal(wide.gradient(s, dq), narrow.gradient(s, dq))


@pytest.mark.parametrize("images", IMAGES)
def test_an_image_has_the_same_bits_in_any_company(images: str) -> None:
    """A state's Q-values do not depend on how many environments a rank has, nor on its share of a batch."""
    network = Network(KERNELS, images)
    s, _ = network.inputs(40)
    together = network.values(s)
    for first, last in [(0, 1), (3, 10), (7, 40), (39, 40)]:
        np.testing.assert_array_equal(network.values(s[first:last], memory_rows=40), together[first:last])


def test_a_number_that_is_not_one_stays_to_be_seen() -> None:
    network = Network(KERNELS, "smallest")
    s, dq = network.inputs(2)
    network.vector[0] = np.nan  # a view: the layers hold it
    assert np.isnan(network.values(s)).all()
    assert np.isnan(network.gradient(s, dq)).any()
