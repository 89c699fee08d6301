"""The MLP in one compiled call per pass: around a small network's products NumPy's calls take as long as these."""

from __future__ import annotations

import ctypes

import numpy as np

from hvd_dqn.agent.numpy_mlp import Activations, Affine, NumpyMLP, Rows
from hvd_dqn.agent.parameters import ParameterLayout
from hvd_dqn.maths.kernels import address, aligned_zeros

_SMALL_LAYER = 100_000
"""Parameters of a layer whose products gain little from a second thread; the compiled passes have one."""


class CompiledActivations(Activations):
    """The same memory with its addresses, and some for a pass' own use."""

    def __init__(self, rows: int, widths: list[int], deepest: int, panel_width: int) -> None:
        """Takes memory for hidden layers and outputs of these widths, and for products of this inner dimension."""
        super().__init__(rows, widths)
        self.values_at = np.array([*self.hidden_at, address(self.q)], np.uintp)
        self.all_gradients_at = np.array([*self.gradients_at, 0], np.uintp)
        self._panel = aligned_zeros(deepest * panel_width)
        self.addresses = tuple(array.ctypes.data for array in (self.values_at, self.all_gradients_at, self._panel))


class CompiledMLP(NumpyMLP):
    """A `NumpyMLP` whose passes are compiled: a row has the same bits however many rows are computed together."""

    def __init__(
        self, kernels: ctypes.CDLL, layout: ParameterLayout, num_categories: int, observation_dtype: np.dtype
    ) -> None:
        """Prepares; see `NumpyMLP`."""
        super().__init__(kernels, layout, num_categories, observation_dtype)
        widths = [self._shapes[0][0] - 1, *(columns for _, columns in self._shapes)]
        self._widths = np.array(widths, np.uintp)
        self.shape, self._deepest = (self._widths.ctypes.data, len(self._shapes)), max(widths) + 1

    def activations(self, rows: int) -> CompiledActivations:
        """Takes memory for passes of this many rows."""
        widths = [columns for _, columns in self._shapes]
        return CompiledActivations(rows, widths, max(rows, self._deepest), self.kernels.mlp_panel_width())

    def forward(self, affine: Affine, x: Rows, activations: Activations) -> np.ndarray:
        """Computes Q-values; see `NumpyMLP`."""
        assert isinstance(activations, CompiledActivations)
        values_at, _, panel_at = activations.addresses
        rows = len(x)
        self.kernels.mlp_forward(affine.at, *self.shape, x.at, rows, values_at, panel_at)
        return activations.q[:rows]

    def backward(self, affine: Affine, x: Rows, activations: Activations, dq: Rows, out: Affine) -> None:
        """Writes the gradient of a loss of the Q-values into `out`; see `NumpyMLP`."""
        assert isinstance(activations, CompiledActivations)
        values_at, gradients_at, panel_at = activations.addresses
        activations.all_gradients_at[-1] = dq.at
        self.kernels.mlp_backward(affine.at, *self.shape, x.at, len(x), values_at, gradients_at, out.at, panel_at)


def make_mlp(
    kernels: ctypes.CDLL, layout: ParameterLayout, num_categories: int, observation_dtype: np.dtype, threads: int
) -> NumpyMLP:
    """Chooses the faster passes.

    Args:
      kernels: from `load_kernels`.
      layout: the network's parameter layout.
      num_categories: see `NumpyMLP`.
      observation_dtype: see `NumpyMLP`.
      threads: of this rank; NumPy's products use them.
    """
    largest = max(rows * columns for rows, columns in layout.shapes[0::2])
    compiled = kernels.mlp_supported() and (threads == 1 or largest < _SMALL_LAYER)
    return (CompiledMLP if compiled else NumpyMLP)(kernels, layout, num_categories, observation_dtype)
