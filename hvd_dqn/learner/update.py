"""What an update does with the global vector: the same arithmetic for whole parameters and for a shard of them."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from hvd_dqn.learner.learner import NUM_STATISTICS, StepSettings
from hvd_dqn.learner.optimizers import OPTIMIZERS, clip_by_global_norm

_SMALLEST_WEIGHT = 1e-30
Slots = tuple[tf.Tensor, ...]


class Summed(NamedTuple):
    """A global vector in its parts, losses divided by the largest weight of the global batch."""

    gradient: tf.Tensor  # float32 [P]
    statistics: tf.Tensor  # float32 [NUM_STATISTICS]
    signals: tf.Tensor  # float32 [F]
    priority: tf.Tensor  # float32 scalar, the largest of all ranks; 0 where losses are not weighted
    square: tf.Tensor  # float32 scalar, squared L2 norm of the gradient
    tail_square: tf.Tensor  # float32 scalar, of what follows the gradient: not finite if any of it is not


def read_sum(vector: tf.Tensor, length: int, settings: StepSettings) -> Summed:
    """Takes a global vector apart.

    Args:
      vector: float32 [length + statistics + F], 2 W more where losses are weighted: the sum of what `LocalVector`
        returns, or a shard of the gradient with all that follows it.
      length: elements of the gradient or of its shard.
      settings: of an update.
    """
    gradient, statistics, signals, largest = tf.split(vector, [length, NUM_STATISTICS, settings.num_signals, -1])
    priority = tf.constant(0.0)
    if settings.weighted:
        weight, priority = tf.unstack(tf.reduce_max(tf.reshape(largest, [2, -1]), axis=1))
        factor = 1.0 / tf.maximum(weight, _SMALLEST_WEIGHT)  # no rank has a weight where all have a fault
        gradient, statistics = gradient * factor, statistics * tf.stack([factor, 1.0, 1.0])
    tail_square = tf.reduce_sum(tf.square(vector[length:]))
    return Summed(gradient, statistics, signals, priority, square_sum(gradient), tail_square)


def step(
    settings: StepSettings,
    number: tf.Tensor,
    rate: tf.Tensor,
    online: tf.Tensor,
    slots: Slots,
    gradient: tf.Tensor,
    square: tf.Tensor,
) -> tuple[tf.Tensor, Slots]:
    """Clips a gradient and applies the optimizer.

    Args:
      settings: of an update.
      number: float32 scalar, 1 at the first update.
      rate: float32 scalar, the learning rate.
      online: float32 [P].
      slots: float32 [P] each.
      gradient: float32 [P].
      square: float32 scalar, squared L2 norm of the whole gradient.

    Returns:
      Online parameters and slots.
    """
    most = settings.max_grad_norm
    clipped = clip_by_global_norm(gradient, tf.sqrt(square), most) if most > 0 else gradient
    return OPTIMIZERS[settings.optimizer].update(online, slots, clipped, number, rate, settings.optimizer_epsilon)


def square_sum(vector: tf.Tensor) -> tf.Tensor:
    """Sums a flat vector's squares in eight parallel strips: XLA adds one strip's numbers one after the other."""
    even = vector.shape[0] // 8 * 8
    strips = tf.split(tf.square(vector[:even]), 8)
    return tf.reduce_sum(tf.add_n(strips)) + tf.reduce_sum(tf.square(vector[even:]))
