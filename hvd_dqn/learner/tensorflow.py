"""The general learner: any algorithm, any network, any device; K updates in one call of a TensorFlow graph.

Each update is: gradient -> one flat vector -> one allreduce -> optimizer step. With one rank there is nothing between
gradient and step, so all K updates compile to a single XLA program; with more they alternate with allreduces, as two
XLA programs. Convolutions on the CPU stay outside XLA, where oneDNN is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import tensorflow as tf

from hvd_dqn.learner.gradient import LocalVector, UpdateParts
from hvd_dqn.learner.graph_call import GraphCall
from hvd_dqn.learner.learner import NUM_STATISTICS, Report, Vector, make_report
from hvd_dqn.learner.optimizers import OPTIMIZERS
from hvd_dqn.learner.update import Slots, read_sum, square_sum
from hvd_dqn.learner.update import step as apply_step
from hvd_dqn.transition import Transition

Allreduce = Callable[[tf.Tensor], tf.Tensor]


class TensorFlowLearner:
    """Owns the online and target parameters and the optimizer's slots, each a flat float32 tensor [P]."""

    def __init__(self, parts: UpdateParts, allreduce_sum: Allreduce | None) -> None:
        """Builds the graph of the updates.

        Args:
          parts: of an update.
          allreduce_sum: sums a float32 vector over the ranks, inside a tf.function; None with one rank.
        """
        self.layout = parts.network.layout
        self._settings = parts.settings
        self._allreduce_sum, self._clock = allreduce_sum, parts.clock
        self._local = LocalVector(parts)
        self._gradient, self._step = self._local, self._apply
        jit_compile = parts.compilation.jit_compile
        whole = jit_compile and allreduce_sum is None
        if not whole:  # as functions nested in a larger XLA program they would cost 15 % more
            graph = partial(tf.function, autograph=False)
            self._gradient = graph(self._local, jit_compile=jit_compile)
            self._step = graph(self._apply, jit_compile=True)
        self._updates = GraphCall(self._run_updates, self._signature(), jit_compile=whole)
        self.step = 0
        self.learning_rate = parts.settings.learning_rate
        self.online = tf.constant(parts.network.initial_parameters(), tf.float32)  # [P]
        self.target = tf.identity(self.online)  # [P]
        self.slots = tuple(tf.zeros_like(self.online) for _ in self.slot_names)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Returns the optimizer's names of the slots."""
        return OPTIMIZERS[self._settings.optimizer].slot_names

    def learn(self, batches: Transition, weights: np.ndarray, signals: np.ndarray) -> Report:
        """Runs K updates; see `Learner`."""
        start = time.perf_counter()
        inputs = [
            *(self.online, self.target, *self.slots),
            tf.constant(self.step, tf.int32),
            tf.constant(self.learning_rate, tf.float32),
            tf.constant(signals, tf.float32),
            tf.constant(weights, tf.float32),
            *(tf.constant(column) for column in batches),
        ]
        copied = time.perf_counter()
        self.online, *slots, report, priorities, waited = self._updates(*inputs)  # COLLECTIVE: K allreduces
        self.slots = tuple(slots)
        local_steps, steps, largest_priority, *sums = report.numpy().tolist()
        end = time.perf_counter()
        self._clock(("transfer", "allreduce", "gradient"), (start, copied, copied + float(waited), end))
        self.step += int(steps)
        statistics, totals = sums[:NUM_STATISTICS], sums[NUM_STATISTICS:]
        return make_report(local_steps, steps, statistics, totals, priorities.numpy(), largest_priority)

    def load(self, online: Vector, target: Vector, slots: Sequence[Vector]) -> None:
        """Takes these vectors."""
        self.online, self.target = tf.convert_to_tensor(online), tf.convert_to_tensor(target)
        self.slots = tuple(tf.convert_to_tensor(slot) for slot in slots)

    def load_target(self, target: Vector) -> None:
        """Takes the target parameters."""
        self.target = tf.convert_to_tensor(target)

    def _run_updates(self, online: tf.Tensor, target: tf.Tensor, *rest: tf.Tensor) -> list[tf.Tensor]:
        """Runs K updates; all state is loop-carried tensors.

        Args:
          online: float32 [P].
          target: float32 [P].
          *rest: the slots, float32 [P] each; the updates before these, an int32 scalar; the learning rate; the signals,
            float32 [F]; weights and columns of K batches.

        Returns:
          Online parameters, slots, the report (see `_apply`), priorities [K, B], and the seconds spent in
          allreduces, float64.
        """
        num_slots = len(self.slot_names)
        slots, (step, rate, signals, weights, *columns) = rest[:num_slots], rest[num_slots:]
        updates = tf.shape(weights)[0]

        def update(
            k: tf.Tensor,
            online: tf.Tensor,
            slots: Slots,
            report: tf.Tensor,
            priorities: tf.TensorArray,
            seconds: tf.Tensor,
        ) -> tuple:
            batch = (weights[k], *(column[k] for column in columns))
            local, priority = self._gradient(step + 1 + k, online, target, signals, *batch)
            if self._allreduce_sum is None:
                vector = local
            else:
                since = _timestamp_after(local)
                vector = self._allreduce_sum(local)  # COLLECTIVE
                seconds += _timestamp_after(vector) - since
            online, slots, report = self._step(k, step, rate, online, slots, report, local, vector)
            return k + 1, online, slots, report, priorities.write(k, priority), seconds

        report = tf.zeros([3 + NUM_STATISTICS + self._settings.num_signals])
        priorities = tf.TensorArray(tf.float32, updates, element_shape=[self._settings.batch_size_per_rank])
        _, online, slots, report, priorities, seconds = tf.while_loop(
            lambda k, *_: k < updates,
            update,
            (tf.constant(0), online, tuple(slots), report, priorities, tf.constant(0.0, tf.float64)),
            parallel_iterations=1,
        )
        return [online, *slots, report, priorities.stack(), seconds]

    def _apply(
        self,
        k: tf.Tensor,
        step: tf.Tensor,
        rate: tf.Tensor,
        online: tf.Tensor,
        slots: Slots,
        report: tf.Tensor,
        local: tf.Tensor,
        vector: tf.Tensor,
    ) -> tuple[tf.Tensor, Slots, tf.Tensor]:
        """Applies update k's global gradient, unless it or one before it was not finite: the same on all ranks.

        Args:
          k: the update's number in this call.
          step: updates before this call.
          rate: the learning rate.
          online: float32 [P].
          slots: float32 [P] each.
          report: float32 [3 + statistics + F]: this rank's finite gradients, updates applied, the largest priority in
            these, the statistics' sums over these, the signals' sums over the ranks.
          local: this rank's part of the vector.
          vector: the sum over the ranks of what `LocalVector` returns.

        Returns:
          Online parameters, slots and report after the update.
        """
        summed = read_sum(vector, self.layout.total, self._settings)
        healthy = tf.equal(report[1], tf.cast(k, tf.float32))  # all before it were applied
        finite = tf.math.is_finite(summed.square + summed.tail_square)
        apply = tf.logical_and(healthy, finite)

        def applied() -> tuple[tf.Tensor, Slots]:
            number = tf.cast(step + k + 1, tf.float32)
            return apply_step(self._settings, number, rate, online, slots, summed.gradient, summed.square)

        new_online, new_slots = tf.cond(apply, applied, lambda: (online, slots))
        # Whose fault it is matters only for the first such sum: the updates after it may be tried again.
        local_finite = finite
        if local is not vector:
            local_finite = tf.cond(finite, lambda: finite, lambda: tf.math.is_finite(square_sum(local)))
        at_fault = tf.logical_and(healthy, tf.logical_not(tf.logical_or(finite, local_finite)))
        local_steps, steps, most_urgent, sums, _ = tf.split(report, [1, 1, 1, NUM_STATISTICS, -1])
        local_steps += 1.0 - tf.cast(at_fault, tf.float32)
        after = tf.concat([steps + 1.0, tf.maximum(most_urgent, summed.priority), sums + summed.statistics], axis=0)
        results = tf.where(apply, after, tf.concat([steps, most_urgent, sums], axis=0))
        return new_online, new_slots, tf.concat([local_steps, results, summed.signals], axis=0)

    def _signature(self) -> list[tf.TensorSpec]:
        """Returns the input specification of `_run_updates`; K is left open."""
        vector = tf.TensorSpec([self.layout.total], tf.float32)
        return [
            *(vector, vector, *[vector] * len(self.slot_names)),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.float32),
            tf.TensorSpec([self._settings.num_signals], tf.float32),
            *self._local.batch_signature(None),
        ]


def _timestamp_after(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the time, in seconds as float64, at which a flat vector was ready.

    It waits for a value: a function's result, once inlined, does not hold back what waits for the function.
    """
    with tf.control_dependencies([tensor[:1]]):
        return tf.timestamp()
