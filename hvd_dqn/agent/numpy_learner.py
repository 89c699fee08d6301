"""The learner of small MLPs on the CPU, in NumPy and compiled kernels: no TensorFlow call, no graph.

Next to `GraphLearner` it is the fast path: the same updates (a test compares them), several times sooner, because
a graph's dispatch takes longer than a small network's arithmetic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from hvd_dqn.agent.learner import NUM_STATISTICS, Clock, LearnReport, Vector, make_report, no_clock
from hvd_dqn.agent.numpy_mlp import NumpyMLP
from hvd_dqn.agent.parameters import ParameterLayout
from hvd_dqn.maths.kernel_optimizers import clipping_factor, make_update
from hvd_dqn.maths.kernels import address
from hvd_dqn.maths.losses import LOSSES
from hvd_dqn.maths.optimizers import OPTIMIZERS
from hvd_dqn.transition import Transition

Produce = Callable[[int, np.ndarray], np.ndarray]
"""produce(k, total): applies the sum over ranks of round k - 1, if any, and returns this rank's vector of round k."""
MakeRounds = Callable[[int, Produce], Callable[[int], np.ndarray]]
"""make_rounds(length, produce): a function that runs K rounds of produce and sum over ranks; returns the last sum."""

_IS_HUBER = {"mse": False, "huber": True}
assert _IS_HUBER.keys() == LOSSES.keys()

_ROWS_AT_ONCE = 2048
"""Rows of a forward pass over all K batches: as many as stay in a core's cache."""


class NumpyLearner:
    """Updates online parameters and slots in place."""

    def __init__(
        self,
        mlp: NumpyMLP,
        layout: ParameterLayout,
        initial: np.ndarray,
        *,
        optimizer: str,
        learning_rate: float,
        loss: str,
        gamma: float,
        double_dqn: bool,
        max_grad_norm: float,
        global_batch_size: int,
        batch_size_per_rank: int,
        num_flags: int,
        make_rounds: MakeRounds,
        clock: Clock = no_clock,
    ) -> None:
        """Takes all memory.

        Args:
          mlp: the network's passes.
          layout: the network's parameter layout.
          initial: float32 [P], the initial online and target parameters.
          optimizer: a name in `OPTIMIZERS`.
          learning_rate: the effective step size.
          loss: a name in `LOSSES`.
          gamma: discount per env step.
          double_dqn: whether the online network chooses the target's action.
          max_grad_norm: L2 norm to which the global gradient is clipped; 0 for no clipping.
          global_batch_size: transitions per update over all ranks.
          batch_size_per_rank: transitions per update on this rank.
          num_flags: F, length of the flags that ride along.
          make_rounds: the exchange.
          clock: is told where the time goes.
        """
        self.layout = layout
        self.slot_names = OPTIMIZERS[optimizer].slot_names
        self.step = 0
        self.online = initial.astype(np.float32)  # [P]
        self.target = self.online.copy()  # [P]
        self.slots = tuple(np.zeros_like(self.online) for _ in self.slot_names)
        self._mlp, self._kernels = mlp, mlp.kernels
        self._update = make_update(mlp.kernels, optimizer, self.online, self.slots, learning_rate)
        self._huber = _IS_HUBER[loss]
        self._gamma = np.float32(gamma)
        self._double_dqn = double_dqn
        self._max_grad_norm = max_grad_norm
        self._scale = 1.0 / global_batch_size
        self._online_layers, self._target_layers = mlp.affine(self.online), mlp.affine(self.target)
        self._pass, self._next_pass = mlp.activations(batch_size_per_rank), mlp.activations(batch_size_per_rank)
        self._many = mlp.activations(max(_ROWS_AT_ONCE, batch_size_per_rank))
        self._dq = np.zeros((batch_size_per_rank, mlp.num_actions), np.float32)  # [B, A]
        self._vector = np.zeros(layout.total + NUM_STATISTICS + num_flags, np.float32)  # [P + statistics + F]
        self._statistics = self._vector[layout.total : layout.total + NUM_STATISTICS]
        self._gradient_layers = mlp.affine(self._vector)
        self._total, self._total_at, self._vector_at = self._vector, address(self._vector), address(self._vector)
        self._q_at, self._dq_at, self._statistics_at = map(address, (self._pass.q, self._dq, self._statistics))
        self._next_q_at = address(self._next_pass.q)
        self._clock = clock
        self._run_rounds = make_rounds(len(self._vector), self._produce)

    def load(self, online: Vector, target: Vector, slots: Sequence[Vector]) -> None:
        """Takes copies of these vectors."""
        for own, new in zip((self.online, self.target, *self.slots), (online, target, *slots), strict=True):
            np.copyto(own, np.asarray(new))

    def load_target(self, target: Vector) -> None:
        """Takes a copy of the target parameters."""
        np.copyto(self.target, np.asarray(target))

    def learn(self, batches: Transition, flags: np.ndarray) -> LearnReport:
        """Runs K updates; see `Learner`."""
        self._since = time.perf_counter()
        updates, batch = batches.a_tm1.shape
        shape = (updates, batch, -1)
        self._x_tm1 = self._mlp.features(batches.s_tm1.reshape(updates * batch, *batches.s_tm1.shape[2:]))
        self._x_tm1 = self._x_tm1.reshape(shape)  # [K, B, in + 1]
        x_t = self._mlp.features(batches.s_t.reshape(updates * batch, *batches.s_t.shape[2:]))
        self._x_t = x_t.reshape(shape)
        self._actions = np.ascontiguousarray(batches.a_tm1, np.int32)  # [K, B]
        self._r_t = np.ascontiguousarray(batches.r_t, np.float32)  # [K, B]
        self._discount_t = np.ascontiguousarray(self._gamma * ~batches.terminated)  # [K, B]
        self._targets = np.empty((updates, batch), np.float32)
        self._rows_at = [address(part) for part in (self._actions, self._r_t, self._discount_t, self._targets)]
        self._vector[self.layout.total + NUM_STATISTICS :] = flags
        self._healthy, self._applied, self._local_finite = True, 0, 0
        self._sums = np.zeros(NUM_STATISTICS)
        with np.errstate(invalid="ignore", over="ignore"):  # a number that is not finite is looked for below
            self._q_t = self._target_values(x_t)  # [K * B, A]
            self._q_t_at = address(self._q_t)
            if not self._double_dqn:
                self._write_targets(0, updates * batch, chooser=self._q_t_at)
            total = self._run_rounds(updates)  # COLLECTIVE: K allreduces
            self._tick("allreduce")
            self._apply(total)
        flag_sums = total[self.layout.total + NUM_STATISTICS :].tolist()
        return make_report(updates, self._local_finite, self._applied, self._sums.tolist(), flag_sums)

    def _target_values(self, x_t: np.ndarray) -> np.ndarray:
        """Computes the target network's values of all K batches [K * B, A]: it stays the same for all of them."""
        q_t = np.empty((len(x_t), self._many.q.shape[1]), np.float32)
        for start in range(0, len(x_t), len(self._many.q)):
            part = x_t[start : start + len(self._many.q)]
            q_t[start : start + len(part)] = self._mlp.forward(self._target_layers, part, self._many)
        return q_t

    def _write_targets(self, first: int, rows: int, chooser: int) -> None:
        """Computes the targets of some rows of [K * B] from the target network's values of the chosen actions.

        Args:
          first: the first of these rows.
          rows: how many.
          chooser: where the values [rows, A] lie whose best action is chosen.
        """
        num_actions = self._mlp.num_actions
        r_t, discount_t, targets = (at + 4 * first for at in self._rows_at[1:])
        q_t = self._q_t_at + 4 * first * num_actions
        self._kernels.q_learning_targets(chooser, q_t, r_t, discount_t, rows, num_actions, targets)

    def _produce(self, k: int, total: np.ndarray) -> np.ndarray:
        """Applies the sum of the round before, then computes this rank's part of round k's vector.

        Sums over the local batch are divided by the GLOBAL batch size, so that the sum over ranks is exactly the
        mean over the global batch, however unevenly the batch is shared.
        """
        if k > 0:
            self._tick("allreduce")
            self._apply(total)
        x_tm1 = self._x_tm1[k]  # [B, in + 1]
        batch, first = len(x_tm1), k * len(x_tm1)
        if self._double_dqn:
            self._mlp.forward(self._online_layers, self._x_t[k], self._next_pass)
            self._write_targets(first, batch, chooser=self._next_q_at)
        self._mlp.forward(self._online_layers, x_tm1, self._pass)
        self._kernels.q_learning_gradient(
            self._q_at,
            self._rows_at[0] + 4 * first,
            self._rows_at[3] + 4 * first,
            batch,
            self._mlp.num_actions,
            self._scale,
            self._huber,
            self._dq_at,
            self._statistics_at,
        )
        self._mlp.backward(self._online_layers, x_tm1, self._pass, self._dq, self._gradient_layers)
        self._tick("gradient")
        return self._vector

    def _apply(self, total: np.ndarray) -> None:
        """Applies a global gradient unless it, or one before it, is not finite: the same verdict on all ranks."""
        if total is not self._total:
            self._total, self._total_at = total, address(total)
        norm = self._norm(self._total_at)
        finite = not math.isnan(norm)
        self._local_finite += finite or not math.isnan(self._norm(self._vector_at))
        self._healthy = self._healthy and finite
        if not self._healthy:
            return
        self.step += 1
        self._applied += 1
        self._sums += total[self.layout.total : self.layout.total + NUM_STATISTICS]
        self._update(self._total_at, clipping_factor(norm, self._max_grad_norm), self.step)
        self._tick("apply")

    def _norm(self, vector: int) -> float:
        """Returns the norm of the gradient in an exchanged vector; NaN if anything in it is not finite."""
        return self._kernels.finite_norm(vector, self.layout.total, len(self._vector))

    def _tick(self, phase: str) -> None:
        """Tells the clock that a phase has run since the last tick."""
        now = time.perf_counter()
        self._clock(phase, self._since, now)
        self._since = now
