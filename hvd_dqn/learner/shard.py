"""A parameter server's shard: a part of the flat parameter vector, with the optimizer's state for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from hvd_dqn.learner.graph_call import GraphCall
from hvd_dqn.learner.learner import NUM_STATISTICS, StepSettings
from hvd_dqn.learner.optimizers import OPTIMIZERS
from hvd_dqn.learner.update import Summed, read_sum, step
from hvd_dqn.shares import first_index, share


def bounds(total: int, index: int, count: int) -> slice:
    """Returns which of a vector's `total` elements are the shard of server `index` of `count`."""
    first = first_index(total, index, count)
    return slice(first, first + share(total, index, count))


def tail_length(settings: StepSettings) -> int:
    """Returns the elements that follow the gradient in a global vector; see `LocalVector`."""
    return NUM_STATISTICS + settings.num_signals + (2 * settings.size if settings.weighted else 0)


class Sum(NamedTuple):
    """A global vector's shard, read, with its tail in plain numbers."""

    gradient: tf.Tensor  # float32 [L]
    square: float  # of this shard's gradient
    tail_square: float  # not finite if any number of the tail is not
    priority: float
    statistics: list[float]
    signals: list[float]


class Shard:
    """L elements of the online parameters and of each slot; applies updates to them."""

    def __init__(self, length: int, settings: StepSettings) -> None:
        """Compiles nothing yet; the shard is zero until `load`.

        Args:
          length: L.
          settings: of an update.
        """
        self.length, self.settings = length, settings
        self.online = tf.zeros([length])  # [L]
        self.slots = tuple(tf.zeros([length]) for _ in OPTIMIZERS[settings.optimizer].slot_names)
        vector, scalar = tf.TensorSpec([length], tf.float32), tf.TensorSpec([], tf.float32)
        whole = tf.TensorSpec([length + tail_length(settings)], tf.float32)
        self._read = GraphCall(self._read_sum, [whole], jit_compile=True)
        signature = [scalar, scalar, scalar, *[vector] * (2 + len(self.slots))]
        self._step = GraphCall(self._apply, signature, jit_compile=True)

    def load(self, vectors: np.ndarray) -> None:
        """Takes copies of the online parameters and the slots, float32 [(1 + slots) L]."""
        self.online, *slots = (tf.constant(part) for part in np.split(vectors, 1 + len(self.slots)))
        self.slots = tuple(slots)

    def read(self, gradient: np.ndarray, tail: np.ndarray) -> Sum:
        """Reads a global vector.

        Args:
          gradient: float32 [L], summed over the ranks.
          tail: float32 [tail_length], what follows the gradient, summed over the ranks.
        """
        scaled, numbers = self._read(tf.constant(np.concatenate([gradient, tail])))
        square, tail_square, priority, *rest = numbers.numpy().tolist()
        return Sum(scaled, square, tail_square, priority, rest[:NUM_STATISTICS], rest[NUM_STATISTICS:])

    def apply(self, number: int, rate: float, gradient: tf.Tensor, square: float) -> None:
        """Clips a gradient and applies the optimizer.

        Args:
          number: of the update, 1 for the first.
          rate: the learning rate.
          gradient: float32 [L].
          square: squared L2 norm of the whole gradient, over all shards.
        """
        numbers = (tf.constant(value, tf.float32) for value in (number, rate, square))
        self.online, *slots = self._step(*numbers, gradient, self.online, *self.slots)
        self.slots = tuple(slots)

    def _read_sum(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """Returns the gradient [L], and the other parts as one vector: one copy to the host."""
        summed: Summed = read_sum(vector, self.length, self.settings)
        scalars = tf.stack([summed.square, summed.tail_square, summed.priority])
        return [summed.gradient, tf.concat([scalars, summed.statistics, summed.signals], axis=0)]

    def _apply(
        self,
        number: tf.Tensor,
        rate: tf.Tensor,
        square: tf.Tensor,
        gradient: tf.Tensor,
        online: tf.Tensor,
        *slots: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Returns online parameters and slots after an update."""
        online, slots = step(self.settings, number, rate, online, slots, gradient, square)
        return [online, *slots]
