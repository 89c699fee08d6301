"""The MLP in NumPy, forwards and backwards: for small networks a TensorFlow call costs more than the arithmetic.

NumPy multiplies the matrices; what stands between two products is a compiled kernel.

A kernel [in, out] and its bias [out] are neighbours in the flat vector, so together they are one matrix
[in + 1, out] that takes inputs with a last column of ones: bias and bias gradient come with the matrix products.
"""

from __future__ import annotations

import ctypes
import math

import numpy as np

from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.library import address

_SMALL_PRODUCT = 1_000_000
"""Multiplications up to which OpenBLAS reads the operands where they lie; for more it first copies them."""
_FEWEST_ROWS = 16
"""Of a block of rows: fewer leave vector units idle."""


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Multiplies matrices [M, K] and [K, N]: np.matmul, in blocks of rows where these are small products.

    An update's products are often a little too large for that, and then take a quarter longer than their two halves.
    """
    rows, most = len(a), _SMALL_PRODUCT // b.size
    if rows <= most or most < _FEWEST_ROWS:
        np.matmul(a, b, out=out)
        return
    blocks = -(-rows // most)
    for block in range(blocks):
        part = slice(block * rows // blocks, (block + 1) * rows // blocks)
        np.matmul(a[part], b, out=out[part])


class Rows:
    """Contiguous rows float32 [N, width] and where they lie: asking NumPy takes as long as a small product."""

    __slots__ = ("array", "at")

    def __init__(self, array: np.ndarray, at: int | None = None) -> None:
        """Takes rows whose address may be known."""
        self.array = array
        self.at = address(array) if at is None else at

    def __len__(self) -> int:
        """Returns N."""
        return len(self.array)

    def part(self, first: int, count: int) -> Rows:
        """Returns `count` rows from `first` on, or as many as there are; a view."""
        return Rows(self.array[first : first + count], self.at + first * self.array.strides[0])


class Affine:
    """The layers of a contiguous flat vector [P], as views [in + 1, out] whose last row is the bias."""

    def __init__(self, vector: np.ndarray, shapes: list[tuple[int, int]]) -> None:
        """Cuts the vector."""
        ends = np.cumsum([rows * columns for rows, columns in shapes])
        parts = np.split(vector[: ends[-1]], ends[:-1])
        self.matrices = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.at = address(vector)


class Activations:
    """What a forward pass of N rows leaves behind, and a backward pass' gradients, in memory that is taken once."""

    def __init__(self, rows: int, widths: list[int]) -> None:
        """Takes memory for hidden layers and outputs of these widths."""
        self.hidden = [np.ones((rows, width + 1), np.float32) for width in widths[:-1]]
        self.gradients = [np.empty_like(hidden) for hidden in self.hidden]
        self.q = np.empty((rows, widths[-1]), np.float32)
        self.hidden_at = [address(hidden) for hidden in self.hidden]
        self.gradients_at = [address(gradient) for gradient in self.gradients]


class NumpyMLP:
    """A network that `build_network` made with kind "mlp": ReLU layers, a linear output."""

    rows_at_once = 512
    """Rows of a forward pass over all K batches: as many as stay in a core's cache."""

    def __init__(
        self, kernels: ctypes.CDLL, layout: ParameterLayout, num_categories: int, observation_dtype: np.dtype
    ) -> None:
        """Prepares for a layout of alternating kernels [in, out] and biases [out].

        Args:
          kernels: from `load_kernels`.
          layout: the network's parameter layout.
          num_categories: values of a Discrete observation (one-hot), 0 for others.
          observation_dtype: integer vectors are scaled from 0..255 to 0..1 as in the Keras model.
        """
        self.kernels = kernels
        self._shapes = [(math.prod(fan_in) + 1, fan_out) for *fan_in, fan_out in layout.shapes[0::2]]
        self._num_categories = num_categories
        self._scale = np.float32(1.0 / 255.0 if np.issubdtype(observation_dtype, np.integer) else 1.0)
        self.total = layout.total
        self.num_actions = self._shapes[-1][1]

    def affine(self, vector: np.ndarray) -> Affine:
        """Returns the layers of a contiguous flat vector [P], or of the beginning of a longer one."""
        return Affine(vector, self._shapes)

    def activations(self, rows: int, *, backward: bool) -> Activations:
        """Takes memory for forward passes of this many rows, each followed by a backward pass or not."""
        return Activations(rows, [columns for _, columns in self._shapes])

    def features(self, s: np.ndarray) -> Rows:
        """Returns the first layer's input, float32 [N, in + 1], of observations [N, *observation_shape]."""
        rows, width = len(s), self._shapes[0][0] - 1
        if self._num_categories:
            one_hot = np.zeros((rows, width + 1), np.float32)
            one_hot[np.arange(rows), s] = one_hot[:, -1] = 1.0
            return Rows(one_hot)
        x = Rows(np.empty((rows, width + 1), np.float32))
        flat = np.ascontiguousarray(s, np.float32)
        self.kernels.rows_with_ones(address(flat), rows, width, self._scale, x.at)
        return x

    def forward(self, affine: Affine, x: Rows, activations: Activations) -> np.ndarray:
        """Computes Q-values.

        Args:
          affine: the layers.
          x: float32 [N, in + 1], from `features`.
          activations: memory for N rows or more; `backward` reads it.

        Returns:
          float32 [N, A], overwritten by the next pass with the same memory.
        """
        rows, layer_input = len(x), x.array
        for layer, memory, at in zip(affine.matrices[:-1], activations.hidden, activations.hidden_at, strict=True):
            hidden = memory[:rows]
            multiply(layer_input, layer, out=hidden[:, :-1])  # [N, H]; the column of ones stays
            self.kernels.relu(at, hidden.size)
            layer_input = hidden  # [N, H + 1]
        q = activations.q[:rows]
        multiply(layer_input, affine.matrices[-1], out=q)  # [N, A]
        return q

    def values(self, affine: Affine, x: Rows, activations: Activations) -> np.ndarray:
        """Computes the Q-values float32 [N, A] of any number of rows, in fresh memory; see `forward`."""
        q = np.empty((len(x), self.num_actions), np.float32)
        for start in range(0, len(x), len(activations.q)):
            part = x.part(start, len(activations.q))
            q[start : start + len(part)] = self.forward(affine, part, activations)
        return q

    def backward(self, affine: Affine, x: Rows, activations: Activations, dq: Rows, out: Affine) -> None:
        """Writes the gradient of a loss of the Q-values into `out`.

        Args:
          affine: the layers.
          x: the forward pass's input.
          activations: what that pass left behind.
          dq: float32 [N, A], gradient of the loss with respect to the Q-values.
          out: the layers of the flat gradient.
        """
        delta = dq.array  # [N, out]
        for depth in range(len(affine.matrices) - 1, 0, -1):
            hidden, wide = activations.hidden[depth - 1], activations.gradients[depth - 1]  # [N, in + 1]
            multiply(hidden.T, delta, out=out.matrices[depth])  # [in + 1, out]
            # One column too many: the kernel takes contiguous memory.
            np.matmul(delta, affine.matrices[depth].T, out=wide)
            self.kernels.relu_gradient(activations.gradients_at[depth - 1], activations.hidden_at[depth - 1], wide.size)
            delta = wide[:, :-1]  # [N, in]
        multiply(x.array.T, delta, out=out.matrices[0])
