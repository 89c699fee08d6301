"""The native learner: (Double) DQN on an MLP, on CPUs; K updates in one call of C, parameters updated in place.

It computes what `TensorFlowLearner` computes (a test compares them), sooner, because nothing is copied in or out of a
graph and MPI_Allreduce is called from C.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from ctypes import c_double, c_int64, c_size_t, c_uint64, c_void_p

import numpy as np

from hvd_dqn.distributed.communicator import MPIHandles
from hvd_dqn.learner.learner import (
    NUM_STATISTICS,
    Clock,
    Report,
    StepSettings,
    Vector,
    make_report,
    no_clock,
)
from hvd_dqn.learner.optimizers import OPTIMIZERS
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.library import check_struct, pointer
from hvd_dqn.native.mlp import NativeMLP
from hvd_dqn.native.optimizers import BoundOptimizer, bind_optimizer
from hvd_dqn.transition import Transition

_PHASES = ("transfer", "gradient", "allreduce", "apply")
"""Of a call: the first once, the others for each update."""
RULES = {"dqn": False, "double_dqn": True}
"""The algorithms' native rules, and whether the online network chooses the target's action."""
_IS_HUBER = {"mse": False, "huber": True}
"""By the names of `hvd_dqn.algorithms.losses.LOSSES`."""


class _Learner(ctypes.Structure):
    """Twin of `struct learner` in updates.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("mlp", "optimizer", "online", "target")),
        ("parameters", c_size_t),
        ("length", c_size_t),
        *((name, c_void_p) for name in ("own", "total", "allreduce", "datatype", "operation", "communicator")),
        ("max_grad_norm", c_double),
        ("scale", c_double),
        ("huber", c_int64),
        ("double_dqn", c_int64),
        ("step", c_uint64),
    )


class _Batches(ctypes.Structure):
    """Twin of `struct batches` in updates.h."""

    _fields_ = (
        ("updates", c_size_t),
        ("rows", c_size_t),
        *((name, c_void_p) for name in ("x_tm1", "x_t", "a_tm1", "r_t", "discount_t", "weights")),
        *((name, c_void_p) for name in ("q_t", "targets", "priorities")),
    )


class _Report(ctypes.Structure):
    """Twin of `struct report` in updates.h."""

    _fields_ = (
        ("healthy", c_int64),
        ("applied", c_uint64),
        ("locally_finite", c_uint64),
        ("sums", c_double * NUM_STATISTICS),
    )


class NativeLearner:
    """Updates online parameters and slots in place, each a flat float32 array [P]."""

    def __init__(
        self,
        mlp: NativeMLP,
        layout: ParameterLayout,
        initial: np.ndarray,
        settings: StepSettings,
        *,
        rule: str,
        loss: str,
        mpi: MPIHandles | None,
        clock: Clock = no_clock,
    ) -> None:
        """Takes all memory.

        Args:
          mlp: the network's passes.
          layout: its parameter layout.
          initial: float32 [P], the initial online and target parameters.
          settings: of an update.
          rule: a name in `RULES`.
          loss: mse or huber.
          mpi: how to sum over the ranks, None where this rank is alone.
          clock: receives the times of the phases.
        """
        self.layout = layout
        self.slot_names = OPTIMIZERS[settings.optimizer].slot_names
        self.online, self.target = initial.copy(), initial.copy()  # [P]
        self.slots = tuple(np.zeros_like(initial) for _ in self.slot_names)
        self._mlp, self._clock, self._batch_size = mlp, clock, settings.batch_size_per_rank
        length = layout.total + NUM_STATISTICS + settings.num_signals
        self._own = np.zeros(length, np.float32)
        self._total = self._own if mpi is None else np.zeros(length, np.float32)
        self._signals_start = layout.total + NUM_STATISTICS
        self._optimizer = bind_optimizer(
            settings.optimizer, self.online, self.slots, settings.learning_rate, settings.optimizer_epsilon
        )
        self._struct = _Learner(
            mlp.pointer,
            ctypes.addressof(self._optimizer),
            *(pointer(self.online), pointer(self.target), layout.total, length),
            *(pointer(self._own), pointer(self._total), *_allreduce(mpi)),
            *(settings.max_grad_norm, 1.0 / settings.global_batch_size, _IS_HUBER[loss], RULES[rule], 0),
        )
        twins = {"optimizer": BoundOptimizer, "learner": _Learner, "batches": _Batches, "report": _Report}
        for name, twin in twins.items():
            check_struct(mlp.library, name, twin)
        self._take_batch_memory(0)

    @property
    def step(self) -> int:
        """Updates so far, which Adam's bias correction counts."""
        return int(self._struct.step)

    @step.setter
    def step(self, step: int) -> None:
        self._struct.step = int(step)

    @property
    def learning_rate(self) -> float:
        """The effective step size of the next updates."""
        return float(self._optimizer.learning_rate)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._optimizer.learning_rate = rate

    def load(self, online: Vector, target: Vector, slots: Sequence[Vector]) -> None:
        """Takes copies of these vectors."""
        for own, new in zip((self.online, self.target, *self.slots), (online, target, *slots), strict=True):
            np.copyto(own, np.asarray(new))

    def load_target(self, target: Vector) -> None:
        """Takes a copy of the target parameters."""
        np.copyto(self.target, np.asarray(target))

    def learn(self, batches: Transition, weights: np.ndarray, signals: np.ndarray) -> Report:
        """Runs K updates; see `Learner`."""
        start = time.perf_counter()
        updates = len(weights)
        if updates != self._updates:
            self._take_batch_memory(updates)
        rows = updates * self._batch_size
        for s, x in ((batches.s_tm1, self._x_tm1), (batches.s_t, self._x_t)):
            self._mlp.features(s.reshape(rows, *s.shape[2:]), x)
        columns = [np.ascontiguousarray(c) for c in (batches.a_tm1, batches.r_t, batches.discount_t, weights)]
        priorities = np.empty((updates, self._batch_size), np.float32)
        given = _Batches(
            updates,
            self._batch_size,
            *(pointer(array) for array in (self._x_tm1, self._x_t, *columns, self._q_t, self._targets, priorities)),
        )
        self._own[self._signals_start :] = signals
        self._marks[:2] = start, time.perf_counter()
        report = _Report(healthy=True)
        error = self._mlp.library.learner_updates(  # COLLECTIVE: K allreduces
            ctypes.addressof(self._struct),
            ctypes.addressof(given),
            ctypes.addressof(report),
            self._marks[2:].ctypes.data,
        )
        if error:
            raise RuntimeError(f"MPI_Allreduce failed with error {error}: a rank is lost")
        self._clock(_PHASES[:1], self._marks[:2].tolist())
        self._clock(_PHASES[1:], self._marks[1:].tolist())
        sums = self._total[self._signals_start :].tolist()
        return make_report(report.locally_finite, report.applied, list(report.sums), sums, priorities)

    def _take_batch_memory(self, updates: int) -> None:
        """Takes memory for what is computed of K batches."""
        rows = updates * self._batch_size
        self._updates = updates
        self._x_tm1, self._x_t = (np.empty((rows, self._mlp.inputs + 1), np.float32) for _ in range(2))
        self._q_t = np.empty((rows, self._mlp.outputs), np.float32)
        self._targets = np.empty(rows, np.float32)
        self._marks = np.zeros(2 + (len(_PHASES) - 1) * updates)  # seconds


def _allreduce(mpi: MPIHandles | None) -> tuple[int | None, ...]:
    """Returns the address of MPI_Allreduce and its handles of datatype, operation and communicator."""
    if mpi is None:
        return None, None, None, None
    function = ctypes.CDLL(mpi.library).MPI_Allreduce
    return ctypes.cast(function, c_void_p).value, mpi.datatype, mpi.operation, mpi.communicator
