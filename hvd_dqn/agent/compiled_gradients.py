"""The gradients of a compiled MLP in one call per batch, which compiled updates make without Python."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from hvd_dqn.agent.compiled_mlp import CompiledActivations, CompiledMLP
from hvd_dqn.agent.host_learner import CompiledGradients
from hvd_dqn.agent.mlp_gradients import MLPGradients
from hvd_dqn.agent.numpy_mlp import NumpyMLP
from hvd_dqn.maths.kernels import address, function_address
from hvd_dqn.transition import Transition


class _State(ctypes.Structure):
    """What a gradient is computed from; twin of the struct in mlp_gradients.c."""

    _fields_ = (
        ("online", ctypes.c_void_p),
        ("widths", ctypes.c_void_p),
        ("layers", ctypes.c_size_t),
        ("own_pass", ctypes.c_void_p * 3),
        ("next_pass", ctypes.c_void_p * 3),
        ("vector", ctypes.c_void_p),
        ("statistics", ctypes.c_void_p),
        ("dq", ctypes.c_void_p),
        ("scale", ctypes.c_double),
        ("huber", ctypes.c_int64),
        ("double_dqn", ctypes.c_int64),
        ("batch", ctypes.c_size_t),
        *((name, ctypes.c_void_p) for name in ("x_tm1", "x_t", "a_tm1", "r_t", "discount_t", "targets", "q_t")),
    )


class CompiledMLPGradients(MLPGradients):
    """An `MLPGradients` whose `compute` is one call."""

    def __init__(
        self, mlp: CompiledMLP, online: np.ndarray, target: np.ndarray, vector: np.ndarray, **settings: Any
    ) -> None:
        """Takes the memory; see `MLPGradients`."""
        super().__init__(mlp, online, target, vector, **settings)
        own, following = self._pass, self._next_pass
        assert isinstance(own, CompiledActivations)
        assert isinstance(following, CompiledActivations)
        own.all_gradients_at[-1] = self._dq.at
        pointers = ctypes.c_void_p * 3
        self._state = _State(
            self._online_layers.at,
            *mlp.shape,
            pointers(*own.addresses),
            pointers(*following.addresses),
            address(self._vector),
            self._statistics_at,
            self._dq.at,
            self._scale,
            self._huber,
            self._double_dqn,
        )
        function = function_address(self._kernels.mlp_gradient)
        self.compiled = CompiledGradients(function, ctypes.addressof(self._state))

    def prepare(self, batches: Transition, flags: np.ndarray) -> None:
        """Takes the batches; see `MLPGradients`."""
        super().prepare(batches, flags)
        state = self._state
        state.batch, state.x_tm1, state.x_t, state.q_t = self._batch, self._x_tm1.at, self._x_t.at, self._q_t_at
        state.a_tm1, state.r_t, state.discount_t, state.targets = self._rows_at

    def compute(self, k: int) -> np.ndarray:
        """Computes this rank's part of the global vector; see `MLPGradients`."""
        self._kernels.mlp_gradient(ctypes.addressof(self._state), k)
        return self._vector


def make_mlp_gradients(
    mlp: NumpyMLP, online: np.ndarray, target: np.ndarray, vector: np.ndarray, **settings: Any
) -> MLPGradients:
    """Returns the fastest gradients that these passes allow; see `MLPGradients` for the settings."""
    if isinstance(mlp, CompiledMLP):
        return CompiledMLPGradients(mlp, online, target, vector, **settings)
    return MLPGradients(mlp, online, target, vector, **settings)
