"""The general learner: any algorithm, any network, any device; K updates in one call of a TensorFlow graph.

Gradient -> one flat vector -> one allreduce -> optimizer step, K times, in one `tf.while_loop` whose state is
loop-carried tensors. The optimizer step is one XLA cluster (a single pass over memory); the gradient is one too for
MLPs and on GPUs, and a plain graph for convolutions on the CPU, where oneDNN is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.base import Algorithm
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.learner import (
    NUM_STATISTICS,
    PHASES,
    Clock,
    Report,
    StepSettings,
    Vector,
    make_report,
    no_clock,
)
from hvd_dqn.learner.optimizers import OPTIMIZERS, clip_by_global_norm
from hvd_dqn.transition import Transition


class Compilation(NamedTuple):
    """How the graph is built."""

    jit_compile: bool  # whether the gradient is an XLA cluster
    loss_scale: float = 1.0
    """Power of two that the loss is multiplied by while gradients pass through layers of half precision,
    Micikevicius et al. (2018), section 3.2."""
    seed: int = 0  # of the noise


class TensorFlowLearner:
    """Owns the online and target parameters and the optimizer's slots, each a flat float32 tensor [P]."""

    def __init__(
        self,
        network: FlatNetwork,
        algorithm: Algorithm,
        initial: np.ndarray,
        settings: StepSettings,
        compilation: Compilation,
        *,
        allreduce_sum: Callable[[tf.Tensor], tf.Tensor],
        action_shape: tuple[int, ...] = (),
        clock: Clock = no_clock,
    ) -> None:
        """Builds the compiled update.

        Args:
          network: the network.
          algorithm: the loss.
          initial: float32 [P], the initial online and target parameters.
          settings: of an update.
          compilation: how the graph is built.
          allreduce_sum: sums a float32 vector over the ranks, inside a tf.function.
          action_shape: of one action.
          clock: is told where the time goes; on a GPU, when work was handed over rather than when it was done.
        """
        self.layout = network.layout
        self._network, self._algorithm = network, algorithm
        self._settings, self._compilation = settings, compilation
        self._optimizer = OPTIMIZERS[settings.optimizer]
        self._allreduce_sum, self._clock = allreduce_sum, clock
        jit_compile = compilation.jit_compile
        self._local_vector = tf.function(self._local, jit_compile=jit_compile, autograph=False)
        self._apply = tf.function(self._apply_gradient, jit_compile=True, autograph=False)
        self._measured = tf.function(self._measure, jit_compile=True, autograph=False)
        self._updates = tf.function(self._run_updates, autograph=False).get_concrete_function(
            *self._signature(action_shape)
        )
        self.slot_names = self._optimizer.slot_names
        self.step = 0
        self.online = tf.constant(initial, tf.float32)  # [P]
        self.target = tf.identity(self.online)  # [P]
        self.slots = tuple(tf.zeros_like(self.online) for _ in self._optimizer.slot_names)

    def learn(self, batches: Transition, weights: np.ndarray, signals: np.ndarray) -> Report:
        """Runs K updates; see `Learner`."""
        start = time.perf_counter()
        self.online, self.slots, report, priorities, seconds = self._updates(  # COLLECTIVE: K allreduces
            self.online,
            self.target,
            *self.slots,
            tf.constant(self.step, tf.int32),
            *(tf.constant(column) for column in batches),
            tf.constant(weights),
            tf.constant(signals, tf.float32),
        )
        local_steps, steps, *sums = report.numpy()
        self.step += int(steps)
        self._report_time(start, time.perf_counter(), seconds.numpy())
        return make_report(local_steps, steps, sums[:NUM_STATISTICS], sums[NUM_STATISTICS:], priorities.numpy())

    def load(self, online: Vector, target: Vector, slots: Sequence[Vector]) -> None:
        """Takes these vectors."""
        self.online, self.target = tf.convert_to_tensor(online), tf.convert_to_tensor(target)
        self.slots = tuple(tf.convert_to_tensor(slot) for slot in slots)

    def load_target(self, target: Vector) -> None:
        """Takes the target parameters."""
        self.target = tf.convert_to_tensor(target)

    def _local(
        self,
        online: tf.Tensor,
        target: tf.Tensor,
        step: tf.Tensor,
        signals: tf.Tensor,
        weights: tf.Tensor,
        *columns: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes this rank's part of the global vector.

        Sums over the local batch are divided by the GLOBAL batch size, so that the sum over ranks is exactly the
        mean over the global batch, however unevenly the batch is shared.

        Returns:
          float32 [P + statistics + F], and the transitions' priorities [B].
        """
        settings, scale = self._settings, self._compilation.loss_scale
        batch_size = settings.batch_size_per_rank
        noise = Noise(self._compilation.seed, step, settings.first_row, batch_size, settings.global_batch_size)
        parameters = self.layout.split(online)
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            losses = self._algorithm.loss(
                lambda s: self._network.forward(parameters, s),
                lambda s: self._network(target, s),
                Transition(*columns),
                noise,
            )  # [B] each
            loss = tf.reduce_sum(weights * losses.loss) / settings.global_batch_size
            scaled_loss = loss * scale if scale != 1.0 else loss
        gradients = [tf.reshape(gradient, [-1]) for gradient in tape.gradient(scaled_loss, parameters)]
        if scale != 1.0:
            gradients = [gradient / scale for gradient in gradients]
        means = [tf.reduce_sum(values) / settings.global_batch_size for values in losses[1:]]
        return tf.concat([*gradients, tf.stack([loss, *means]), signals], axis=0), losses.priority

    def _apply_gradient(
        self, parameters: tf.Tensor, slots: tuple[tf.Tensor, ...], vector: tf.Tensor, square: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Applies a global gradient, the head of `vector`, whose squares' sum is known."""
        settings, gradient = self._settings, vector[: self.layout.total]  # [P]
        if settings.max_grad_norm > 0:
            gradient = clip_by_global_norm(gradient, tf.sqrt(square), settings.max_grad_norm)
        return self._optimizer.update(parameters, slots, gradient, tf.cast(step, tf.float32), settings.learning_rate)

    def _measure(self, vector: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the squares' sum of the gradient, and of all of `vector`: finite where all values are."""
        square = _square_sum(vector[: self.layout.total])
        return square, square + tf.reduce_sum(tf.square(vector[self.layout.total :]))

    def _run_updates(self, online: tf.Tensor, target: tf.Tensor, *rest: tf.Tensor) -> tuple:
        """Loops over K updates; all state is loop-carried tensors.

        Returns:
          Online parameters, slots, one vector (this rank's finite gradients, updates applied, sums of the
          statistics over these, signals), priorities [K, B], and the seconds of each phase but the transfer.
        """
        num_slots = len(self._optimizer.slot_names)
        slots, (step, *columns, weights, signals) = rest[:num_slots], rest[num_slots:]
        updates, len_signals = tf.shape(weights)[0], self._settings.num_signals

        def update(
            k: tf.Tensor,
            online: tf.Tensor,
            slots: tuple,
            healthy: tf.Tensor,
            report: tf.Tensor,
            priorities: tf.TensorArray,
            since: tf.Tensor,
            seconds: tf.Tensor,
        ) -> tuple:
            number = step + 1 + k
            local, priority = self._local_vector(
                online, target, number, signals, weights[k], *(column[k] for column in columns)
            )
            computed = _timestamp_after(local)
            vector = self._allreduce_sum(local)  # COLLECTIVE
            reduced = _timestamp_after(vector)
            square, everything = self._measured(vector)
            # A gradient that is not finite is applied on no rank, nor is any after it: the same verdict everywhere.
            finite = tf.math.is_finite(everything)
            first = tf.logical_and(healthy, tf.logical_not(finite))
            healthy = tf.logical_and(healthy, finite)
            online, slots = tf.cond(
                healthy, lambda: self._apply(online, slots, vector, square, number), lambda: (online, slots)
            )
            statistics, signal_sums = tf.split(
                vector[self.layout.total :], [NUM_STATISTICS, self._settings.num_signals]
            )
            sums = report[1 : 2 + NUM_STATISTICS]
            sums = tf.where(healthy, sums + tf.concat([[1.0], statistics], axis=0), sums)
            # Whose fault it is matters only for the first such sum: the updates after it may be tried again.
            local_finite = tf.cond(first, lambda: tf.math.is_finite(self._measured(local)[1]), lambda: True)
            report = tf.concat([[report[0] + tf.cast(local_finite, tf.float32)], sums, signal_sums], axis=0)
            applied = _timestamp_after(online)
            seconds += tf.stack([computed - since, reduced - computed, applied - reduced])
            return k + 1, online, slots, healthy, report, priorities.write(k, priority), applied, seconds

        report = tf.zeros(2 + NUM_STATISTICS + len_signals)
        priorities = tf.TensorArray(tf.float32, updates, element_shape=[self._settings.batch_size_per_rank])
        state: tuple[Any, ...] = (tf.constant(0), online, tuple(slots), tf.constant(True), report, priorities)
        _, online, slots, _, report, priorities, _, seconds = tf.while_loop(
            lambda k, *_: k < updates,
            update,
            (*state, tf.timestamp(), tf.zeros(len(PHASES) - 1, tf.float64)),
            parallel_iterations=1,
        )
        return online, slots, report, priorities.stack(), seconds

    def _report_time(self, start: float, end: float, seconds: np.ndarray) -> None:
        """Reports the phases' sums over the K updates, and what is left of the call as transfer."""
        left = max(0.0, end - start - float(seconds.sum()))
        self._clock(PHASES, np.cumsum([start, left, *seconds]).tolist())

    def _signature(self, action_shape: tuple[int, ...]) -> list[tf.TensorSpec]:
        """Returns the input specification of `_run_updates`; K is left open."""
        rows = [None, self._settings.batch_size_per_rank]
        vector = tf.TensorSpec([self.layout.total], tf.float32)
        s = tf.TensorSpec([*rows, *self._network.observation_shape], self._network.observation_dtype)
        number = tf.TensorSpec(rows, tf.float32)
        return [
            *(vector for _ in range(2 + len(self._optimizer.slot_names))),
            tf.TensorSpec([], tf.int32),
            *(s, tf.TensorSpec([*rows, *action_shape], tf.int32), number, number, s),
            number,
            tf.TensorSpec([self._settings.num_signals], tf.float32),
        ]


def _square_sum(vector: tf.Tensor) -> tf.Tensor:
    """Sums a flat vector's squares in eight strips side by side: XLA adds one strip's numbers one after the other."""
    even = vector.shape[0] // 8 * 8
    strips = tf.split(tf.square(vector[:even]), 8)
    return tf.reduce_sum(tf.add_n(strips)) + tf.reduce_sum(tf.square(vector[even:]))


def _timestamp_after(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the time, in seconds as float64, at which a flat vector was ready.

    It waits for a value: a function's result, once inlined, does not hold back what waits for the function.
    """
    with tf.control_dependencies([tensor[:1]]):
        return tf.timestamp()
