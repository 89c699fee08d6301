"""The MLP in one compiled call per pass: around a small network's products NumPy's calls take as long as these."""

from __future__ import annotations

import ctypes

import numpy as np

from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.compiled_structs import NetworkStruct, PassStruct
from hvd_dqn.native.library import address, aligned_zeros
from hvd_dqn.native.numpy_mlp import Activations, Affine, NumpyMLP, Rows

_SMALL_LAYER = 100_000
"""Parameters of a layer whose products gain little from a second thread; the compiled passes have one."""


class CompiledActivations(Activations):
    """The same memory as compiled passes are told of it, with some for a pass' own use."""

    def __init__(self, rows: int, widths: list[int], deepest: int, panel_width: int) -> None:
        """Takes memory for hidden layers and outputs of these widths, and for products of this inner dimension."""
        super().__init__(rows, widths)
        self._values_at = np.array([*self.hidden_at, address(self.q)], np.uintp)
        self._gradients_at = np.array([*self.gradients_at, 0], np.uintp)
        self._panel = aligned_zeros(deepest * panel_width)
        self.struct = PassStruct(self._values_at.ctypes.data, self._gradients_at.ctypes.data, address(self._panel))
        self.at = ctypes.addressof(self.struct)

    def take_output_gradient(self, dq: Rows) -> None:
        """Takes where the loss' gradient with respect to the Q-values lies from now on."""
        self._gradients_at[-1] = dq.at


class CompiledMLP(NumpyMLP):
    """A `NumpyMLP` whose passes are compiled: a row has the same bits however many rows are computed together."""

    def __init__(
        self,
        kernels: ctypes.CDLL,
        layout: ParameterLayout,
        num_categories: int,
        observation_dtype: np.dtype,
        first_layer: int = 0,
    ) -> None:
        """Prepares; see `NumpyMLP`. Layers before the first are no part of the MLP."""
        super().__init__(kernels, layout, num_categories, observation_dtype)
        shapes = self._shapes[first_layer:]
        widths = [shapes[0][0] - 1, *(columns for _, columns in shapes)]
        self._widths, self._deepest = np.array(widths, np.uintp), max(widths) + 1
        self._struct = NetworkStruct(self._widths.ctypes.data, len(widths) - 1, 4 * (widths[0] + 1))
        self.at = ctypes.addressof(self._struct)

    def activations(self, rows: int, *, backward: bool) -> CompiledActivations:
        """Takes memory for passes of this many rows; see `NumpyMLP`."""
        deepest = max(rows, self._deepest)
        return CompiledActivations(rows, self._widths[1:].tolist(), deepest, self.kernels.product_panel_width())

    def forward(self, affine: Affine, x: Rows, activations: Activations) -> np.ndarray:
        """Computes Q-values; see `NumpyMLP`."""
        assert isinstance(activations, CompiledActivations)
        rows = len(x)
        self.kernels.network_forward(self.at, affine.at, x.at, rows, activations.at)
        return activations.q[:rows]

    def values(self, affine: Affine, x: Rows, activations: Activations) -> np.ndarray:
        """Computes the Q-values of any number of rows; see `NumpyMLP`."""
        assert isinstance(activations, CompiledActivations)
        q = np.empty((len(x), self.num_actions), np.float32)
        self.kernels.network_values(self.at, affine.at, x.at, len(x), activations.at, len(activations.q), address(q))
        return q

    def backward(self, affine: Affine, x: Rows, activations: Activations, dq: Rows, out: Affine) -> None:
        """Writes the gradient of a loss of the Q-values into `out`; see `NumpyMLP`."""
        assert isinstance(activations, CompiledActivations)
        activations.take_output_gradient(dq)
        self.kernels.network_backward(self.at, affine.at, x.at, len(x), activations.at, out.at)


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
    compiled = kernels.products_supported() and (threads == 1 or largest < _SMALL_LAYER)
    return (CompiledMLP if compiled else NumpyMLP)(kernels, layout, num_categories, observation_dtype)
