"""The learner of any network on any device: K updates in one call of a TensorFlow graph.

Gradient -> one flat vector -> one allreduce -> optimizer step, K times, in one `tf.while_loop` whose state is
loop-carried tensors. The optimizer step is one XLA cluster (a single pass over memory); the gradient is one too for
MLPs and on GPUs, and a plain graph for convolutions on the CPU, where oneDNN is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hvd_dqn.learner.graph_network import LEARNED_COLUMNS, GraphNetwork
from hvd_dqn.learner.learner import NUM_STATISTICS, Clock, LearnReport, Vector, make_report, no_clock
from hvd_dqn.learner.optimizers import OPTIMIZERS, clip_by_global_norm
from hvd_dqn.transition import Transition

TIMED = ("gradient", "allreduce", "apply")
"""The phases of an update that the graph times itself."""


class GraphLearner:
    """Owns the online and target parameters and the optimizer's slots, each a flat float32 tensor [P]."""

    def __init__(
        self,
        network: GraphNetwork,
        initial: np.ndarray,
        *,
        optimizer: str,
        learning_rate: float,
        max_grad_norm: float,
        batch_size_per_rank: int,
        num_flags: int,
        allreduce_sum: Callable[[tf.Tensor], tf.Tensor],
        jit_compile: bool,
        clock: Clock = no_clock,
    ) -> None:
        """Builds the compiled update.

        Args:
          network: the network's passes.
          initial: float32 [P], the initial online and target parameters.
          optimizer: a name in `OPTIMIZERS`.
          learning_rate: the effective step size.
          max_grad_norm: L2 norm to which the global gradient is clipped; 0 for no clipping.
          batch_size_per_rank: transitions per update on this rank.
          num_flags: F, length of the flags that ride along.
          allreduce_sum: sums a float32 vector over the ranks, inside a tf.function.
          jit_compile: whether the gradient is an XLA cluster.
          clock: is told where the time goes; on a GPU, when work was handed over rather than when it was done.
        """
        self.layout = network.layout
        self._optimizer = OPTIMIZERS[optimizer]
        self._learning_rate = learning_rate
        self._max_grad_norm = max_grad_norm
        self._num_flags = num_flags
        self._allreduce_sum = allreduce_sum
        self._clock = clock
        self._local_vector = tf.function(network.local_vector, jit_compile=jit_compile, autograph=False)
        self._all_values = tf.function(network.values_of_all, jit_compile=jit_compile, autograph=False)
        self._apply = tf.function(self._apply_gradient, jit_compile=True, autograph=False)
        self._measured = tf.function(self._measure, jit_compile=True, autograph=False)
        self._updates = tf.function(self._run_updates, autograph=False).get_concrete_function(
            *self._signature(network, batch_size_per_rank)
        )
        self.slot_names = self._optimizer.slot_names
        self.step = 0
        self.online = tf.constant(initial, tf.float32)  # [P]
        self.target = tf.identity(self.online)  # [P]
        self.slots = tuple(tf.zeros_like(self.online) for _ in self._optimizer.slot_names)

    def learn(self, batches: Transition, flags: np.ndarray) -> LearnReport:
        """Runs K updates; see `Learner`."""
        start = time.perf_counter()
        self.online, self.slots, report, seconds = self._updates(  # COLLECTIVE: K allreduces
            self.online,
            self.target,
            *self.slots,
            tf.constant(self.step, tf.float32),
            *(tf.constant(getattr(batches, column)) for column in LEARNED_COLUMNS),
            tf.constant(flags, tf.float32),
        )
        local_steps, steps, *sums = report.numpy()
        self.step += int(steps)
        self._tell_clock(start, time.perf_counter(), seconds.numpy())
        return make_report(len(batches.a_tm1), local_steps, steps, sums[:NUM_STATISTICS], sums[NUM_STATISTICS:])

    def _tell_clock(self, start: float, end: float, seconds: np.ndarray) -> None:
        """Reports the phases' sums over the K updates, and what is left of the call as transfer."""
        left = max(0.0, end - start - float(seconds.sum()))
        self._clock(("transfer", *TIMED), np.cumsum([start, left, *seconds]).tolist())

    def load(self, online: Vector, target: Vector, slots: Sequence[Vector]) -> None:
        """Takes these vectors."""
        self.online, self.target = tf.convert_to_tensor(online), tf.convert_to_tensor(target)
        self.slots = tuple(tf.convert_to_tensor(slot) for slot in slots)

    def load_target(self, target: Vector) -> None:
        """Takes the target parameters."""
        self.target = tf.convert_to_tensor(target)

    def _apply_gradient(
        self, parameters: tf.Tensor, slots: tuple[tf.Tensor, ...], vector: tf.Tensor, square: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Applies a global gradient, the head of `vector`, whose squares' sum is known."""
        gradient = vector[: self.layout.total]  # [P]
        if self._max_grad_norm > 0:
            gradient = clip_by_global_norm(gradient, tf.sqrt(square), self._max_grad_norm)
        return self._optimizer.update(parameters, slots, gradient, step, self._learning_rate)

    def _measure(self, vector: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the squares' sum of the gradient, and of all of `vector`: finite where all values are."""
        square = _square_sum(vector[: self.layout.total])
        return square, square + tf.reduce_sum(tf.square(vector[self.layout.total :]))

    def _run_updates(self, online: tf.Tensor, target: tf.Tensor, *rest: tf.Tensor) -> tuple:
        """Loops over K updates; all state is loop-carried tensors.

        Returns:
          Online parameters, slots, one vector (this rank's finite gradients, updates applied, sums of the
          statistics over these, flags), and the seconds of each phase in `TIMED`.
        """
        num_slots = len(self._optimizer.slot_names)
        slots, (step, *columns, flags) = rest[:num_slots], rest[num_slots:]
        since = tf.timestamp()
        columns.append(self._all_values(target, columns[-1]))

        def update(
            k: tf.Tensor,
            online: tf.Tensor,
            slots: tuple,
            healthy: tf.Tensor,
            report: tf.Tensor,
            since: tf.Tensor,
            seconds: tf.Tensor,
        ) -> tuple:
            local = self._local_vector(flags, online, *(column[k] for column in columns))
            computed = _timestamp_after(local)
            vector = self._allreduce_sum(local)  # COLLECTIVE
            exchanged = _timestamp_after(vector)
            square, everything = self._measured(vector)
            # A gradient that is not finite is applied on no rank, nor is any after it: the same verdict everywhere.
            finite = tf.math.is_finite(everything)
            first = tf.logical_and(healthy, tf.logical_not(finite))
            healthy = tf.logical_and(healthy, finite)
            online, slots = tf.cond(
                healthy,
                lambda: self._apply(online, slots, vector, square, step + 1.0 + tf.cast(k, tf.float32)),
                lambda: (online, slots),
            )
            statistics, flag_sums = tf.split(vector[self.layout.total :], [NUM_STATISTICS, self._num_flags])
            sums = report[1 : 2 + NUM_STATISTICS]
            sums = tf.where(healthy, sums + tf.concat([[1.0], statistics], axis=0), sums)
            # Whose fault it is matters only for the first such sum: the updates after it may be tried again.
            local_finite = tf.cond(first, lambda: tf.math.is_finite(self._measured(local)[1]), lambda: True)
            report = tf.concat([[report[0] + tf.cast(local_finite, tf.float32)], sums, flag_sums], axis=0)
            applied = _timestamp_after(online)
            seconds += tf.stack([computed - since, exchanged - computed, applied - exchanged])
            return k + 1, online, slots, healthy, report, applied, seconds

        report = tf.zeros(2 + NUM_STATISTICS + self._num_flags)
        seconds = tf.zeros(len(TIMED), tf.float64)
        _, online, slots, _, report, _, seconds = tf.while_loop(
            lambda k, *_: k < tf.shape(columns[0])[0],
            update,
            (tf.constant(0), online, tuple(slots), tf.constant(True), report, since, seconds),
            parallel_iterations=1,
        )
        return online, slots, report, seconds

    def _signature(self, network: GraphNetwork, batch: int) -> list[tf.TensorSpec]:
        """Returns the input specification of `_run_updates`; K is left open."""
        vector = tf.TensorSpec([self.layout.total], tf.float32)
        return [
            *(vector for _ in range(2 + len(self._optimizer.slot_names))),
            tf.TensorSpec([], tf.float32),
            *network.signature(batch),
            tf.TensorSpec([self._num_flags], tf.float32),
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
