"""Gradients in NumPy or compiled passes, without TensorFlow."""

from __future__ import annotations

import numpy as np

from hvd_dqn.algorithms.losses import LOSSES
from hvd_dqn.learner.learner import NUM_STATISTICS
from hvd_dqn.native.learner import CompiledGradients
from hvd_dqn.native.library import address
from hvd_dqn.native.numpy_mlp import NumpyMLP, Rows
from hvd_dqn.transition import Transition

_IS_HUBER = {"mse": False, "huber": True}
assert _IS_HUBER.keys() == LOSSES.keys()


class HostGradients:
    """A `Gradients`, in memory that is taken once."""

    calls_tensorflow = False
    compiled: CompiledGradients | None = None

    def __init__(
        self,
        network: NumpyMLP,
        online: np.ndarray,
        target: np.ndarray,
        vector: np.ndarray,
        *,
        loss: str,
        gamma: float,
        double_dqn: bool,
        global_batch_size: int,
        batch_size_per_rank: int,
    ) -> None:
        """Takes the memory.

        Args:
          network: its passes.
          online: float32 [P], the parameters to differentiate by.
          target: float32 [P], the target network's.
          vector: float32 [P + statistics + F], where the rank's part of the global vector goes.
          loss: a name in `LOSSES`.
          gamma: discount per env step.
          double_dqn: whether the online network chooses the target's action.
          global_batch_size: transitions per update over all ranks.
          batch_size_per_rank: transitions per update on this rank, B.
        """
        self._network, self._kernels = network, network.kernels
        self._huber = _IS_HUBER[loss]
        self._gamma = np.float32(gamma)
        self._double_dqn = double_dqn
        self._scale = 1.0 / global_batch_size
        self._online_layers, self._target_layers = network.affine(online), network.affine(target)
        self._pass = network.activations(batch_size_per_rank, backward=True)
        self._next_pass = network.activations(batch_size_per_rank, backward=False)
        self._many = network.activations(max(network.rows_at_once, batch_size_per_rank), backward=False)
        self._dq = Rows(np.zeros((batch_size_per_rank, network.num_actions), np.float32))  # [B, A]
        self._vector = vector
        self._statistics, self._flags = np.split(self._vector[network.total :], [NUM_STATISTICS])
        self._gradient_layers = network.affine(self._vector)
        self._q_at, self._next_q_at = address(self._pass.q), address(self._next_pass.q)
        self._statistics_at = address(self._statistics)

    def prepare(self, batches: Transition, flags: np.ndarray) -> None:
        """Takes the batches and computes the target network's values of all: they stay the same for all updates."""
        updates, batch = batches.a_tm1.shape
        self._batch = batch
        self._x_tm1, self._x_t = (
            self._network.features(s.reshape(updates * batch, *s.shape[2:])) for s in (batches.s_tm1, batches.s_t)
        )  # [K * B, in + 1]
        self._actions = np.ascontiguousarray(batches.a_tm1, np.int32)  # [K, B]
        self._r_t = np.ascontiguousarray(batches.r_t, np.float32)  # [K, B]
        self._discount_t = np.ascontiguousarray(self._gamma * ~batches.terminated)  # [K, B]
        self._targets = np.empty((updates, batch), np.float32)
        self._rows_at = [address(part) for part in (self._actions, self._r_t, self._discount_t, self._targets)]
        self._q_t = self._network.values(self._target_layers, self._x_t, self._many)  # [K * B, A]
        self._q_t_at = address(self._q_t)
        self._flags[:] = flags
        if not self._double_dqn:
            self._write_targets(0, updates * batch, chooser=self._q_t_at)

    def compute(self, k: int) -> np.ndarray:
        """Computes this rank's part of the global vector.

        Sums over the local batch are divided by the GLOBAL batch size, so that the sum over ranks is exactly the
        mean over the global batch, however unevenly the batch is shared.
        """
        batch, first = self._batch, k * self._batch
        x_tm1 = self._x_tm1.part(first, batch)  # [B, in + 1]
        if self._double_dqn:
            self._network.forward(self._online_layers, self._x_t.part(first, batch), self._next_pass)
            self._write_targets(first, batch, chooser=self._next_q_at)
        self._network.forward(self._online_layers, x_tm1, self._pass)
        self._kernels.q_learning_gradient(
            self._q_at,
            self._rows_at[0] + 4 * first,
            self._rows_at[3] + 4 * first,
            batch,
            self._network.num_actions,
            self._scale,
            self._huber,
            self._dq.at,
            self._statistics_at,
        )
        self._network.backward(self._online_layers, x_tm1, self._pass, self._dq, self._gradient_layers)
        return self._vector

    def _write_targets(self, first: int, rows: int, chooser: int) -> None:
        """Computes the targets of some rows of [K * B] from the target network's values of the chosen actions.

        Args:
          first: the first of these rows.
          rows: how many.
          chooser: where the values [rows, A] lie whose best action is chosen.
        """
        num_actions = self._network.num_actions
        r_t, discount_t, targets = (at + 4 * first for at in self._rows_at[1:])
        q_t = self._q_t_at + 4 * first * num_actions
        self._kernels.q_learning_targets(chooser, q_t, r_t, discount_t, rows, num_actions, targets)
