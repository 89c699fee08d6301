"""The gradients of a compiled network in one call per batch, which compiled updates make without Python."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from hvd_dqn.native.compiled_mlp import CompiledActivations, CompiledMLP
from hvd_dqn.native.host_gradients import HostGradients
from hvd_dqn.native.learner import CompiledGradients
from hvd_dqn.native.library import address, function_address
from hvd_dqn.native.numpy_mlp import NumpyMLP
from hvd_dqn.transition import Transition


class _State(ctypes.Structure):
    """What a gradient is computed from; twin of the struct in network_gradients.c."""

    _fields_ = (
        ("network", ctypes.c_void_p),
        ("online", ctypes.c_void_p),
        ("own_pass", ctypes.c_void_p),
        ("next_pass", ctypes.c_void_p),
        ("vector", ctypes.c_void_p),
        ("statistics", ctypes.c_void_p),
        ("dq", ctypes.c_void_p),
        ("scale", ctypes.c_double),
        ("huber", ctypes.c_int64),
        ("double_dqn", ctypes.c_int64),
        ("batch", ctypes.c_size_t),
        *((name, ctypes.c_void_p) for name in ("x_tm1", "x_t", "a_tm1", "r_t", "discount_t", "targets", "q_t")),
    )


class CompiledHostGradients(HostGradients):
    """A `HostGradients` whose `compute` is one call."""

    def __init__(
        self, network: CompiledMLP, online: np.ndarray, target: np.ndarray, vector: np.ndarray, **settings: Any
    ) -> None:
        """Takes the memory; see `HostGradients`."""
        super().__init__(network, online, target, vector, **settings)
        own, following = self._pass, self._next_pass
        assert isinstance(own, CompiledActivations)
        assert isinstance(following, CompiledActivations)
        own.take_output_gradient(self._dq)
        self._state = _State(
            network.at,
            self._online_layers.at,
            own.at,
            following.at,
            address(self._vector),
            self._statistics_at,
            self._dq.at,
            self._scale,
            self._huber,
            self._double_dqn,
        )
        function = function_address(self._kernels.network_gradient)
        self.compiled = CompiledGradients(function, ctypes.addressof(self._state))

    def prepare(self, batches: Transition, flags: np.ndarray) -> None:
        """Takes the batches; see `HostGradients`."""
        super().prepare(batches, flags)
        state = self._state
        state.batch, state.x_tm1, state.x_t, state.q_t = self._batch, self._x_tm1.at, self._x_t.at, self._q_t_at
        state.a_tm1, state.r_t, state.discount_t, state.targets = self._rows_at

    def compute(self, k: int) -> np.ndarray:
        """Computes this rank's part of the global vector; see `HostGradients`."""
        self._kernels.network_gradient(ctypes.addressof(self._state), k)
        return self._vector


def make_host_gradients(
    network: NumpyMLP, online: np.ndarray, target: np.ndarray, vector: np.ndarray, **settings: Any
) -> HostGradients:
    """Returns the fastest gradients that these passes allow; see `HostGradients` for the settings."""
    if isinstance(network, CompiledMLP):
        return CompiledHostGradients(network, online, target, vector, **settings)
    return HostGradients(network, online, target, vector, **settings)
