"""The MLP of `hvd_dqn.networks.mlp` in C: one call per pass, a row's bits the same however many rows there are.

A kernel [in, out] and its bias [out] are neighbours in the flat vector, so together they are one matrix
[in + 1, out] that takes inputs with a last column of ones: bias and bias gradient come with the matrix products.
"""

from __future__ import annotations

import ctypes
import math

import numpy as np

from hvd_dqn.learner.learner import Vector
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.library import check_struct, pointer

_PASS_ROWS = 512
"""Rows of a pass over many: as many as stay in a core's cache."""


class _Struct(ctypes.Structure):
    """Twin of `struct mlp` in mlp.h."""

    _fields_ = (
        ("widths", ctypes.c_void_p),
        ("layers", ctypes.c_size_t),
        ("pass_rows", ctypes.c_size_t),
        ("values", ctypes.c_void_p),
        ("gradients", ctypes.c_void_p),
        ("panel", ctypes.c_void_p),
    )


class NativeMLP:
    """The passes of one network and their memory; two passes at the same time need one each."""

    def __init__(
        self, library: ctypes.CDLL, layout: ParameterLayout, num_categories: int, observation_dtype: np.dtype, rows: int
    ) -> None:
        """Takes all memory.

        Args:
          library: from `load_library`, which supports products on this processor.
          layout: the network's, of alternating kernels [in, out] and biases [out].
          num_categories: values of a Discrete observation (one-hot), 0 for others.
          observation_dtype: integer vectors are scaled from 0..255 to 0..1 as in the Keras model.
          rows: the most that a backward pass takes.
        """
        self.library = library
        shapes = [(math.prod(fan_in), fan_out) for *fan_in, fan_out in layout.shapes[0::2]]
        widths = [shapes[0][0], *(fan_out for _, fan_out in shapes)]
        rows = max(rows, _PASS_ROWS)
        self.inputs, self.outputs = widths[0], widths[-1]
        self._num_categories = num_categories
        self._scale = np.float32(1.0 / 255.0 if np.issubdtype(observation_dtype, np.integer) else 1.0)
        hidden = [np.ones((rows, width + 1), np.float32) for width in widths[1:-1]]
        last = np.empty((rows, widths[-1]), np.float32)
        panel = np.empty((max(rows, *widths) + 1) * library.product_panel_width(), np.float32)
        self._memory = (hidden, [np.empty_like(h) for h in hidden], last, np.zeros_like(last), panel)
        values, gradients = [*hidden, last], [*self._memory[1], self._memory[3]]
        self._widths = np.array(widths, np.uintp)
        self._values, self._gradients = (np.array([pointer(a) for a in of], np.uintp) for of in (values, gradients))
        at = (self._values.ctypes.data, self._gradients.ctypes.data, pointer(panel))
        self._struct = _Struct(self._widths.ctypes.data, len(shapes), rows, *at)
        check_struct(library, "mlp", _Struct)
        self.pointer = ctypes.addressof(self._struct)

    def features(self, s: np.ndarray, out: np.ndarray) -> None:
        """Writes the first layer's input of observations [N, *observation_shape] into float32 [N, inputs + 1]."""
        if self._num_categories:
            out.fill(0.0)
            out[np.arange(len(s)), s.ravel()] = out[:, -1] = 1.0
            return
        rows = np.ascontiguousarray(s, np.float32)
        self.library.rows_with_ones(pointer(rows), len(out), self.inputs, self._scale, pointer(out))


class NativeActionValues:
    """An `ActionValues` by passes in C."""

    def __init__(self, mlp: NativeMLP, parameters: np.ndarray, *, follow: bool) -> None:
        """Acts with these parameters [P].

        Args:
          mlp: passes for the exclusive use of this object.
          parameters: loaded to begin with.
          follow: whether these parameters are used where they lie, so that loading them again copies nothing; for a
            caller that acts while they do not change, and loads no others.
        """
        self._mlp = mlp
        self._parameters = parameters if follow else parameters.copy()
        self._x = np.empty((0, mlp.inputs + 1), np.float32)

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""
        if parameters is not self._parameters:
            np.copyto(self._parameters, np.asarray(parameters))

    def __call__(self, s: np.ndarray, draw: int | None = None) -> np.ndarray:
        """Returns action values float32 [B, A] of observations [B, *observation_shape]; there is no noise to draw."""
        if len(self._x) != len(s):
            self._x = np.empty((len(s), self._mlp.inputs + 1), np.float32)
        self._mlp.features(s, self._x)
        q = np.empty((len(s), self._mlp.outputs), np.float32)
        self._mlp.library.mlp_outputs(
            self._mlp.pointer, pointer(self._parameters), pointer(self._x), len(s), pointer(q)
        )
        return q
