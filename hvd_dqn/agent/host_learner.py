"""The learner of the CPU: parameters in host memory, updated in place by compiled kernels.

Next to `GraphLearner` it is the fast path: the same updates (a test compares them), sooner, because nothing is copied
in or out of a graph. Where gradients come from is handed in.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from hvd_dqn.agent.learner import NUM_STATISTICS, Clock, LearnReport, Vector, make_report, no_clock
from hvd_dqn.agent.parameters import ParameterLayout
from hvd_dqn.maths.kernel_optimizers import clipping_factor, make_update
from hvd_dqn.maths.kernels import LastAddress, address, aligned_zeros
from hvd_dqn.maths.optimizers import OPTIMIZERS
from hvd_dqn.transition import Transition

Produce = Callable[[int, np.ndarray], np.ndarray]
"""produce(k, total): applies the sum over ranks of round k - 1, if any, and returns this rank's vector of round k."""
MakeRounds = Callable[[int, Produce, bool], Callable[[int], np.ndarray]]
"""make_rounds(length, produce, calls_tensorflow): a function that runs K rounds of produce and sum over ranks, and
returns the last sum; the flag says whether produce calls TensorFlow."""


class Gradients(Protocol):
    """Computes this rank's part of the global vector from parameters that it only reads."""

    calls_tensorflow: bool

    def prepare(self, batches: Transition, flags: np.ndarray) -> None:
        """Takes K batches, columns [K, B, ...], and flags [F]; computes what stays the same for all of them."""

    def compute(self, k: int) -> np.ndarray:
        """Returns float32 [P + statistics + F] of batch k, contiguous, untouched until the next call."""


MakeGradients = Callable[[np.ndarray, np.ndarray], Gradients]
"""make_gradients(online, target): of the parameters float32 [P] that lie in these arrays at the time."""


class HostLearner:
    """Updates online parameters and slots in place."""

    def __init__(
        self,
        kernels: ctypes.CDLL,
        layout: ParameterLayout,
        initial: np.ndarray,
        make_gradients: MakeGradients,
        *,
        optimizer: str,
        learning_rate: float,
        max_grad_norm: float,
        num_flags: int,
        make_rounds: MakeRounds,
        clock: Clock = no_clock,
    ) -> None:
        """Takes all memory.

        Args:
          kernels: from `load_kernels`.
          layout: the network's parameter layout.
          initial: float32 [P], the initial online and target parameters.
          make_gradients: where gradients come from.
          optimizer: a name in `OPTIMIZERS`.
          learning_rate: the effective step size.
          max_grad_norm: L2 norm to which the global gradient is clipped; 0 for no clipping.
          num_flags: F, length of the flags that ride along.
          make_rounds: the exchange.
          clock: is told where the time goes.
        """
        self.layout = layout
        self.slot_names = OPTIMIZERS[optimizer].slot_names
        self.step = 0
        self.online, self.target = aligned_zeros(layout.total), aligned_zeros(layout.total)  # [P]
        self.online[:] = self.target[:] = initial
        self.slots = tuple(np.zeros_like(self.online) for _ in self.slot_names)
        self._gradients = make_gradients(self.online, self.target)
        self._finite_norm = kernels.finite_norm
        self._update = make_update(kernels, optimizer, self.online, self.slots, learning_rate)
        self._max_grad_norm = max_grad_norm
        self._length = layout.total + NUM_STATISTICS + num_flags
        self._clock = clock
        self._total = LastAddress()
        self._run_rounds = make_rounds(self._length, self._produce, self._gradients.calls_tensorflow)

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
        updates = len(batches.a_tm1)
        self._healthy, self._applied, self._local_finite = True, 0, 0
        self._sums = np.zeros(NUM_STATISTICS)
        with np.errstate(invalid="ignore", over="ignore"):  # a number that is not finite is looked for below
            self._gradients.prepare(batches, flags)
            total = self._run_rounds(updates)  # COLLECTIVE: K allreduces
            self._tick("allreduce")
            self._apply(total)
        flag_sums = total[self.layout.total + NUM_STATISTICS :].tolist()
        return make_report(updates, self._local_finite, self._applied, self._sums.tolist(), flag_sums)

    def _produce(self, k: int, total: np.ndarray) -> np.ndarray:
        """Applies the sum of the round before, then computes this rank's part of round k's vector."""
        if k > 0:
            self._tick("allreduce")
            self._apply(total)
        self._own = self._gradients.compute(k)
        self._tick("gradient")
        return self._own

    def _apply(self, total: np.ndarray) -> None:
        """Applies a global gradient unless it, or one before it, is not finite: the same verdict on all ranks."""
        at = self._total.of(total)
        norm = self._norm(at)
        finite = not math.isnan(norm)
        first = self._healthy and not finite  # it alone is judged: the updates after it may be tried again
        self._local_finite += not first or not math.isnan(self._norm(address(self._own)))
        self._healthy = self._healthy and finite
        if not self._healthy:
            return
        self.step += 1
        self._applied += 1
        self._sums += total[self.layout.total : self.layout.total + NUM_STATISTICS]
        self._update(at, clipping_factor(norm, self._max_grad_norm), self.step)
        self._tick("apply")

    def _norm(self, vector: int) -> float:
        """Returns the norm of the gradient in an exchanged vector; NaN if anything in it is not finite."""
        return self._finite_norm(vector, self.layout.total, self._length)

    def _tick(self, phase: str) -> None:
        """Tells the clock that a phase has run since the last tick."""
        now = time.perf_counter()
        self._clock(phase, self._since, now)
        self._since = now
