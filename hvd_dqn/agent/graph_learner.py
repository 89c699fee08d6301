"""The learner: K synchronous Q-learning updates in one compiled call, on flat vectors.

Each update is: local gradient (one cluster) -> one flat vector -> one allreduce -> optimizer step (one cluster).
Loss, |td|, mean Q and the caller's flags ride in the same vector, so an update costs exactly one collective.
The learner knows no ranks: it is handed the allreduce, which is the identity where there is one rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hvd_dqn.agent.parameters import ParameterLayout
from hvd_dqn.maths.losses import LOSSES
from hvd_dqn.maths.optimizers import OPTIMIZERS, clip_by_global_norm
from hvd_dqn.maths.targets import chosen_action_values, double_q_targets, td_targets
from hvd_dqn.transition import Transition

NUM_STATISTICS = 3
"""Slots of the exchanged vector behind the gradient: loss, |td|, Q of the chosen action, each a global mean."""

LEARNED_COLUMNS = ("s_tm1", "a_tm1", "r_t", "terminated", "s_t")
"""The columns of a Transition that a one-step target needs: a truncated s_t still bootstraps."""


class LearnReport(NamedTuple):
    """What K updates tell, equal on all ranks."""

    steps: int  # updates applied; less than K if a gradient was not finite
    finite: bool  # whether all K global gradients were finite
    local_finite: bool  # whether this rank's parts of them were: NOT equal on all ranks
    loss: float  # mean over the K global batches
    abs_td_error: float
    mean_q: float  # of the actions taken
    flags: np.ndarray  # float32 [F], sums over the ranks


class Learner:
    """Owns the online and target parameters and the optimizer's slots, each a flat float32 tensor [P]."""

    def __init__(
        self,
        network: keras.Model,
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
        allreduce_sum: Callable[[tf.Tensor], tf.Tensor],
        jit_compile: bool,
    ) -> None:
        """Builds the compiled update.

        Args:
          network: the Q-network; its present weights are the initial online and target parameters.
          optimizer: a name in `OPTIMIZERS`.
          learning_rate: the effective step size.
          loss: a name in `LOSSES`.
          gamma: discount per env step.
          double_dqn: whether the online network chooses the target's action.
          max_grad_norm: L2 norm to which the global gradient is clipped; 0 for no clipping.
          global_batch_size: transitions per update over all ranks.
          batch_size_per_rank: transitions per update on this rank.
          num_flags: F, length of the flags that ride along.
          allreduce_sum: sums a float32 vector over the ranks, inside a tf.function.
          jit_compile: whether gradient and update are XLA clusters (small MLPs) or plain graphs (convolutions on CPU).
        """
        self.layout = ParameterLayout(network)
        self._network = network
        self._optimizer = OPTIMIZERS[optimizer]
        self._learning_rate = learning_rate
        self._loss = LOSSES[loss]
        self._gamma = gamma
        self._double_dqn = double_dqn
        self._max_grad_norm = max_grad_norm
        self._global_batch_size = global_batch_size
        self._num_flags = num_flags
        self._allreduce_sum = allreduce_sum
        self._local_vector = tf.function(self._compute_local_vector, jit_compile=jit_compile)
        self._apply = tf.function(self._apply_global_vector, jit_compile=jit_compile)
        self._updates = tf.function(self._run_updates).get_concrete_function(
            *self._signature(network, batch_size_per_rank)
        )
        self.step = 0
        self.online = tf.constant(self.layout.flatten_variables(network))  # [P]
        self.target = tf.identity(self.online)  # [P]
        self.slots = tuple(tf.zeros_like(self.online) for _ in self._optimizer.slot_names)

    def learn(self, batches: Transition, flags: np.ndarray) -> LearnReport:
        """Runs K updates; every rank must call it with the same K.

        Args:
          batches: K local batches, columns [K, batch_size_per_rank, ...].
          flags: float32 [F], this rank's flags; their sums over the ranks come back.

        Returns:
          The report. A gradient that is not finite (on any rank) is not applied, nor is any after it.
        """
        self.online, self.slots, report = self._updates(  # COLLECTIVE: K allreduces
            self.online,
            self.target,
            *self.slots,
            tf.constant(self.step, tf.float32),
            *(tf.constant(getattr(batches, column)) for column in LEARNED_COLUMNS),
            tf.constant(flags, tf.float32),
        )
        local_steps, steps, *sums = report.numpy()
        self.step += int(steps)
        loss, abs_td_error, mean_q = (total / max(1.0, steps) for total in sums[:NUM_STATISTICS])
        return LearnReport(
            steps=int(steps),
            finite=bool(steps == len(batches.a_tm1)),
            local_finite=bool(local_steps == len(batches.a_tm1)),
            loss=float(loss),
            abs_td_error=float(abs_td_error),
            mean_q=float(mean_q),
            flags=np.array(sums[NUM_STATISTICS:], np.float32),
        )

    def state(self) -> dict[str, np.ndarray]:
        """Returns online, target and slots by name, float32 [P] each."""
        slots = {f"optimizer/{n}": s.numpy() for n, s in zip(self._optimizer.slot_names, self.slots, strict=True)}
        return {"online": self.online.numpy(), "target": self.target.numpy(), **slots}

    def load_state(self, state: dict[str, np.ndarray], step: int) -> None:
        """Puts a state back.

        Raises:
          ValueError: if a vector is missing or has another length than this network's.
        """
        missing = [name for name in self.state() if name not in state]
        if missing:
            raise ValueError(f"the state lacks {missing}: it was saved with another --optimizer")
        wrong = {name: vector.shape for name, vector in state.items() if vector.shape != (self.layout.total,)}
        if wrong:
            raise ValueError(f"the state's vectors {wrong} do not fit a network of {self.layout.total} parameters")
        self.online, self.target = tf.constant(state["online"]), tf.constant(state["target"])
        self.slots = tuple(tf.constant(state[f"optimizer/{name}"]) for name in self._optimizer.slot_names)
        self.step = step

    def action_values(self, parameters: tf.Tensor, s: np.ndarray) -> np.ndarray:
        """Computes Q-values float32 [B, A] of observations with the given parameters [P], through TensorFlow."""
        return self._forward_compiled(parameters, tf.constant(s)).numpy()

    @tf.function(reduce_retracing=True)
    def _forward_compiled(self, parameters: tf.Tensor, s: tf.Tensor) -> tf.Tensor:
        return self._forward(self.layout.split(parameters), s)

    def _forward(self, weights: list[tf.Tensor], s: tf.Tensor) -> tf.Tensor:
        """Returns Q-values [B, A]."""
        q, _ = self._network.stateless_call(weights, self._network.non_trainable_variables, s)
        return q

    def _compute_local_vector(
        self,
        online: tf.Tensor,
        target: tf.Tensor,
        s_tm1: tf.Tensor,
        a_tm1: tf.Tensor,
        r_t: tf.Tensor,
        terminated: tf.Tensor,
        s_t: tf.Tensor,
        flags: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns this rank's part of the global vector [P + statistics + F], and whether it is finite.

        Sums over the local batch are divided by the GLOBAL batch size, so that the sum over ranks is exactly the
        mean over the global batch, however unevenly the batch is shared.
        """
        weights = self.layout.split(online)
        target_weights = self.layout.split(target)
        discount_t = self._gamma * (1.0 - tf.cast(terminated, tf.float32))  # [B]
        q_t = self._forward(target_weights, s_t)  # [B, A]
        if self._double_dqn:
            targets = double_q_targets(r_t, discount_t, q_t, self._forward(weights, s_t))  # [B]
        else:
            targets = td_targets(r_t, discount_t, q_t)  # [B]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            q_a = chosen_action_values(self._forward(weights, s_tm1), a_tm1)  # [B]
            td_error = targets - q_a  # [B]
            loss = tf.reduce_sum(self._loss(td_error)) / self._global_batch_size
        gradients = tape.gradient(loss, weights)
        statistics = [loss, tf.reduce_sum(tf.abs(td_error)), tf.reduce_sum(q_a)]
        statistics[1:] = [value / self._global_batch_size for value in statistics[1:]]
        flat = [tf.reshape(gradient, [-1]) for gradient in gradients]
        vector = tf.concat([*flat, tf.stack(statistics), flags], axis=0)  # [P + statistics + F]
        return vector, tf.reduce_all(tf.math.is_finite(vector))

    def _apply_global_vector(
        self,
        parameters: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        vector: tf.Tensor,
        step: tf.Tensor,
        healthy: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...], tf.Tensor]:
        """Applies the global gradient unless it, or one before it, is not finite: the same verdict on all ranks."""
        healthy = tf.logical_and(healthy, tf.reduce_all(tf.math.is_finite(vector)))
        gradient = vector[: self.layout.total]  # [P]
        if self._max_grad_norm > 0:
            gradient = clip_by_global_norm(gradient, self._max_grad_norm)
        updated = self._optimizer.update(parameters, slots, gradient, step, self._learning_rate)
        kept = tf.nest.map_structure(lambda new, old: tf.where(healthy, new, old), updated, (parameters, slots))
        return *kept, healthy

    def _run_updates(self, online: tf.Tensor, target: tf.Tensor, *rest: tf.Tensor) -> tuple:
        """Loops over K updates; all state is loop-carried tensors.

        Returns:
          Online parameters, slots, and one vector: this rank's finite gradients, updates applied, sums of the
          statistics over these, flags.
        """
        num_slots = len(self._optimizer.slot_names)
        slots, (step, *columns, flags) = rest[:num_slots], rest[num_slots:]

        def update(k: tf.Tensor, online: tf.Tensor, slots: tuple, healthy: tf.Tensor, report: tf.Tensor) -> tuple:
            local, local_finite = self._local_vector(online, target, *(column[k] for column in columns), flags)
            vector = self._allreduce_sum(local)  # COLLECTIVE
            online, slots, healthy = self._apply(online, slots, vector, step + 1.0 + tf.cast(k, tf.float32), healthy)
            statistics, flag_sums = tf.split(vector[self.layout.total :], [NUM_STATISTICS, self._num_flags])
            sums = report[1 : 2 + NUM_STATISTICS]
            sums = tf.where(healthy, sums + tf.concat([[1.0], statistics], axis=0), sums)
            report = tf.concat([[report[0] + tf.cast(local_finite, tf.float32)], sums, flag_sums], axis=0)
            return k + 1, online, slots, healthy, report

        _, online, slots, _, report = tf.while_loop(
            lambda k, *_: k < tf.shape(columns[0])[0],
            update,
            (tf.constant(0), online, tuple(slots), tf.constant(True), tf.zeros(2 + NUM_STATISTICS + self._num_flags)),
            parallel_iterations=1,
        )
        return online, slots, report

    def _signature(self, network: keras.Model, batch: int) -> list[tf.TensorSpec]:
        """Returns the input specification of `_run_updates`; K is left open."""
        vector = tf.TensorSpec([self.layout.total], tf.float32)
        s = tf.TensorSpec([None, batch, *network.input_shape[1:]], network.inputs[0].dtype)
        return [
            *(vector for _ in range(2 + len(self._optimizer.slot_names))),
            tf.TensorSpec([], tf.float32),
            s,
            *(tf.TensorSpec([None, batch], dtype) for dtype in (tf.int32, tf.float32, tf.bool)),
            s,
            tf.TensorSpec([self._num_flags], tf.float32),
        ]
