"""The learner of small MLPs on the CPU, in NumPy: no TensorFlow call, no graph, one BLAS call per matrix product.

Next to `GraphLearner` it is the fast path: the same updates (a test compares them), several times sooner, because
a graph's dispatch takes longer than a small network's arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from hvd_dqn.agent.learner import NUM_STATISTICS, Clock, LearnReport, Vector, make_report, no_clock
from hvd_dqn.agent.numpy_mlp import NumpyMLP
from hvd_dqn.agent.parameters import ParameterLayout
from hvd_dqn.maths.numpy_losses import NUMPY_LOSSES
from hvd_dqn.maths.numpy_optimizers import NUMPY_UPDATES, clipping_factor
from hvd_dqn.maths.optimizers import OPTIMIZERS
from hvd_dqn.transition import Transition

Produce = Callable[[int, np.ndarray], np.ndarray]
"""produce(k, total): applies the sum over ranks of round k - 1, if any, and returns this rank's vector of round k."""
MakeRounds = Callable[[int, Produce], Callable[[int], np.ndarray]]
"""make_rounds(length, produce): a function that runs K rounds of produce and sum over ranks; returns the last sum."""

_ROWS_AT_ONCE = 2048
"""Rows of a forward pass over all K batches: as many as stay in a core's cache."""


_BLOCK = 1 << 15
"""Parameters that the optimizer takes at once: its dozen passes over them stay in a core's cache."""


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
          optimizer: a name in `NUMPY_UPDATES`.
          learning_rate: the effective step size.
          loss: a name in `NUMPY_LOSSES`.
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
        self._mlp = mlp
        self._update = NUMPY_UPDATES[optimizer]
        self._learning_rate = learning_rate
        self._loss = NUMPY_LOSSES[loss]
        self._gamma = np.float32(gamma)
        self._double_dqn = double_dqn
        self._max_grad_norm = max_grad_norm
        self._global_batch_size = global_batch_size
        self._first_columns = np.arange(batch_size_per_rank) * mlp.num_actions  # [B], of each row in a flat [B * A]
        self._online_layers, self._target_layers = mlp.affine(self.online), mlp.affine(self.target)
        self._pass, self._next_pass = mlp.activations(batch_size_per_rank), mlp.activations(batch_size_per_rank)
        self._many = mlp.activations(max(_ROWS_AT_ONCE, batch_size_per_rank))
        self._dq = np.zeros((batch_size_per_rank, mlp.num_actions), np.float32)  # [B, A]
        self._per_row = np.zeros((NUM_STATISTICS, batch_size_per_rank), np.float32)
        self._vector = np.zeros(layout.total + NUM_STATISTICS + num_flags, np.float32)  # [P + statistics + F]
        self._statistics = self._vector[layout.total : layout.total + NUM_STATISTICS]
        self._gradient_layers = mlp.affine(self._vector)
        self._scratch = np.empty_like(self.online)
        self._clock = clock
        self._blocks = [slice(i, i + _BLOCK) for i in range(0, layout.total, _BLOCK)]
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
        self._r_t, self._discount_t = batches.r_t, self._gamma * ~batches.terminated  # [K, B]
        self._chosen = batches.a_tm1 + self._first_columns  # [K, B], places in a flat [B * A]
        self._vector[self.layout.total + NUM_STATISTICS :] = flags
        self._healthy, self._applied, self._local_finite = True, 0, 0
        self._sums = np.zeros(NUM_STATISTICS)
        with np.errstate(invalid="ignore", over="ignore"):  # a number that is not finite is looked for below
            self._q_t = self._target_values(x_t).reshape(shape)  # [K, B, A]
            if not self._double_dqn:
                self._targets = self._r_t + self._discount_t * self._q_t.max(axis=2)  # [K, B]
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
            q_t[start : start + len(part)] = self._mlp.forward(self._target_layers, part, self._many.first(len(part)))
        return q_t

    def _produce(self, k: int, total: np.ndarray) -> np.ndarray:
        """Applies the sum of the round before, then computes this rank's part of round k's vector.

        Sums over the local batch are divided by the GLOBAL batch size, so that the sum over ranks is exactly the
        mean over the global batch, however unevenly the batch is shared.
        """
        if k > 0:
            self._tick("allreduce")
            self._apply(total)
        scale, chosen = np.float32(1.0 / self._global_batch_size), self._chosen[k]  # [B]
        targets = self._double_q_targets(k) if self._double_dqn else self._targets[k]  # [B]
        q = self._mlp.forward(self._online_layers, self._x_tm1[k], self._pass)  # [B, A]
        losses, abs_td_errors, q_a = self._per_row  # [B] each
        q.take(chosen, out=q_a, mode="clip")
        td_error = targets - q_a  # [B]
        slope = self._loss(td_error, losses)
        self._dq.fill(0.0)
        self._dq.ravel()[chosen] = slope * -scale
        self._mlp.backward(self._online_layers, self._x_tm1[k], self._pass, self._dq, self._gradient_layers)
        np.abs(td_error, out=abs_td_errors)
        np.add.reduce(self._per_row, axis=1, out=self._statistics)
        self._statistics *= scale
        self._tick("gradient")
        return self._vector

    def _double_q_targets(self, k: int) -> np.ndarray:
        """Computes round k's targets [B] from the target network's values of the online network's actions."""
        q_online = self._mlp.forward(self._online_layers, self._x_t[k], self._next_pass)  # [B, A]
        best = q_online.argmax(axis=1) + self._first_columns  # [B]
        return self._r_t[k] + self._discount_t[k] * self._q_t[k].take(best)

    def _apply(self, total: np.ndarray) -> None:
        """Applies a global gradient unless it, or one before it, is not finite: the same verdict on all ranks."""
        finite = _all_finite(total)
        self._local_finite += finite or _all_finite(self._vector)
        self._healthy = self._healthy and finite
        if not self._healthy:
            return
        gradient = total[: self.layout.total]
        scale = clipping_factor(gradient, self._max_grad_norm) if self._max_grad_norm > 0 else 1.0
        self.step += 1
        self._applied += 1
        self._sums += total[self.layout.total : self.layout.total + NUM_STATISTICS]
        for block in self._blocks:
            slots = [slot[block] for slot in self.slots]
            self._update(
                self.online[block], slots, gradient[block], scale, self.step, self._learning_rate, self._scratch[block]
            )
        self._tick("apply")

    def _tick(self, phase: str) -> None:
        """Tells the clock that a phase has run since the last tick."""
        now = time.perf_counter()
        self._clock(phase, self._since, now)
        self._since = now


def _all_finite(vector: np.ndarray) -> bool:
    """Returns whether all values are finite, and not so large that their squares' sum overflows."""
    return bool(np.isfinite(np.dot(vector, vector)))
