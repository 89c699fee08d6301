"""The learner of the CPU: parameters in host memory, updated in place by compiled kernels.

Next to `GraphLearner` it is the fast path: the same updates (a test compares them), sooner, because nothing is copied
in or out of a graph. Where gradients come from is handed in.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from hvd_dqn.learner.learner import NUM_STATISTICS, Clock, LearnReport, Vector, make_report, no_clock
from hvd_dqn.learner.optimizers import OPTIMIZERS
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.library import LastAddress, address, aligned_zeros
from hvd_dqn.native.memory import TakeMemory, own_memory
from hvd_dqn.native.optimizers import make_optimizer
from hvd_dqn.transition import Transition

_PHASES = ("gradient", "allreduce", "apply")
"""Of an update, in this order."""

Produce = Callable[[int, np.ndarray], np.ndarray]
"""produce(k, total): applies the sum over ranks of round k - 1, if any, and returns this rank's vector of round k."""
MakeRounds = Callable[[int, Produce, bool], Callable[[int], np.ndarray]]
"""make_rounds(length, produce, calls_tensorflow): a function that runs K rounds of produce and sum over ranks, and
returns the last sum; the flag says whether produce calls TensorFlow."""
FindCompiledExchange = Callable[[int], "tuple[int, int, Callable[[], Exception]] | None"]
"""compiled_exchange(length): address and context of an `exchange_function` of host_learner.c, zeros where this rank is
alone, and what tells of the last sum if it failed; None where the sum is not compiled."""


class CompiledGradients(NamedTuple):
    """Gradients that compiled code can compute: `compute_function` of host_learner.c."""

    function: int
    context: int


class Gradients(Protocol):
    """Computes this rank's part of the global vector from parameters that it only reads."""

    calls_tensorflow: bool
    compiled: CompiledGradients | None
    """The same as `compute`, where it is compiled."""

    def prepare(self, batches: Transition, flags: np.ndarray) -> None:
        """Takes K batches, columns [K, B, ...], and flags [F]; computes what stays the same for all of them."""

    def compute(self, k: int) -> np.ndarray:
        """Returns float32 [P + statistics + F] of batch k, contiguous, untouched until the next call."""


MakeGradients = Callable[[np.ndarray, np.ndarray, np.ndarray], Gradients]
"""make_gradients(online, target, vector): of the parameters float32 [P] that lie in these arrays at the time; what they
compute goes into the vector float32 [P + statistics + F]."""


def no_compiled_exchange(length: int) -> None:
    """Returns none."""


class _State(ctypes.Structure):
    """What updates read and change; twin of the struct in host_learner.c."""

    _fields_ = (
        ("optimizer", ctypes.c_void_p),
        ("start", ctypes.c_size_t),
        ("parameters", ctypes.c_size_t),
        ("length", ctypes.c_size_t),
        ("meet", ctypes.c_void_p),
        ("meeting", ctypes.c_void_p),
        ("squares", ctypes.c_void_p),
        ("max_grad_norm", ctypes.c_double),
        ("step", ctypes.c_uint64),
        ("healthy", ctypes.c_int64),
        ("applied", ctypes.c_uint64),
        ("locally_finite", ctypes.c_uint64),
        ("sums", ctypes.c_double * NUM_STATISTICS),
    )


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
        compiled_exchange: FindCompiledExchange = no_compiled_exchange,
        take_memory: TakeMemory = own_memory,
        clock: Clock = no_clock,
    ) -> None:
        """Takes all memory; a collective.

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
          compiled_exchange: the same exchange for compiled rounds, which need compiled gradients, too.
          take_memory: where parameters, slots and what is exchanged lie.
          clock: is told where the time goes.
        """
        self.layout = layout
        self.slot_names = OPTIMIZERS[optimizer].slot_names
        self._length = layout.total + NUM_STATISTICS + num_flags
        memory = take_memory(initial, len(self.slot_names), self._length)  # COLLECTIVE
        self.online, self.target = memory.state[0], aligned_zeros(layout.total)  # [P]
        self.target[:] = initial
        self.slots = memory.state[1:]
        self._gradients = make_gradients(self.online, self.target, memory.vector)
        self._kernels = kernels
        online_part, *slot_parts = (vector[memory.part] for vector in memory.state)
        self._optimizer = make_optimizer(optimizer, online_part, slot_parts, learning_rate)
        self._state = _State(
            ctypes.addressof(self._optimizer),
            memory.part.start,
            layout.total,
            self._length,
            *memory.meeting,
            memory.squares,
            max_grad_norm,
        )
        self._state_at = ctypes.addressof(self._state)
        self._clock = clock
        self._total, self._own = LastAddress(), LastAddress()
        self._marks = np.zeros(1)  # [1 + 3 K], seconds
        self._flags = np.zeros(num_flags, np.float32)
        compiled = self._gradients.compiled
        exchange = compiled_exchange(self._length) if compiled is not None else None
        self.in_one_call = exchange is not None
        """Whether all of a call's updates are made without Python, whose lock is free meanwhile."""
        if compiled is not None and exchange is not None:
            self._update = self._compiled_updates(compiled, exchange)
        else:
            self._update = self._updates_by(make_rounds(self._length, self._produce, self._gradients.calls_tensorflow))

    @property
    def step(self) -> int:
        """Updates so far, which Adam's bias correction counts."""
        return int(self._state.step)

    @step.setter
    def step(self, step: int) -> None:
        self._state.step = int(step)

    def load(self, online: Vector, target: Vector, slots: Sequence[Vector]) -> None:
        """Takes copies of these vectors."""
        for own, new in zip((self.online, self.target, *self.slots), (online, target, *slots), strict=True):
            np.copyto(own, np.asarray(new))

    def load_target(self, target: Vector) -> None:
        """Takes a copy of the target parameters."""
        np.copyto(self.target, np.asarray(target))

    def learn(self, batches: Transition, flags: np.ndarray) -> LearnReport:
        """Runs K updates; see `Learner`."""
        updates, state = len(batches.a_tm1), self._state
        if len(self._marks) != 1 + len(_PHASES) * updates:
            self._marks = np.zeros(1 + len(_PHASES) * updates)
        self._marks[0] = time.perf_counter()
        state.healthy, state.applied, state.locally_finite = True, 0, 0
        ctypes.memset(state.sums, 0, ctypes.sizeof(state.sums))
        with np.errstate(invalid="ignore", over="ignore"):  # a number that is not finite is looked for in the sums
            self._gradients.prepare(batches, flags)
            self._update(updates)  # COLLECTIVE: K allreduces
        self._clock(_PHASES, self._marks.tolist())
        return make_report(updates, state.locally_finite, state.applied, list(state.sums), self._flags.tolist())

    def _compiled_updates(
        self, gradients: CompiledGradients, exchange: tuple[int, int, Callable[[], Exception]]
    ) -> Callable[[int], None]:
        """Returns K updates in one call."""
        flags_at, (function, context, failure) = address(self._flags), exchange

        def run(updates: int) -> None:
            marks_at = self._marks.ctypes.data + self._marks.itemsize
            if not self._kernels.learner_updates(
                self._state_at, updates, *gradients, function, context, marks_at, flags_at
            ):
                raise failure()

        return run

    def _updates_by(self, run_rounds: Callable[[int], np.ndarray]) -> Callable[[int], None]:
        """Returns K updates one by one: the same steps, around any gradients and any exchange."""

        def run(updates: int) -> None:
            self._marked = 1
            total = run_rounds(updates)
            self._mark()
            self._apply(total)
            self._flags[:] = total[self.layout.total + NUM_STATISTICS :]

        return run

    def _produce(self, k: int, total: np.ndarray) -> np.ndarray:
        """Applies the sum of the round before, then computes this rank's part of round k's vector."""
        if k > 0:
            self._mark()
            self._apply(total)
        own = self._gradients.compute(k)
        self._own_at = self._own.of(own)
        self._mark()
        return own

    def _apply(self, total: np.ndarray) -> None:
        """Applies a global gradient if it is finite."""
        self._kernels.learner_apply(self._state_at, self._total.of(total), self._own_at)
        self._mark()

    def _mark(self) -> None:
        """Notes that a phase has ended."""
        self._marks[self._marked] = time.perf_counter()
        self._marked += 1
