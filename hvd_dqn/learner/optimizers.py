"""Optimizers as pure functions on flat vectors: (parameters, slots, gradient, step) -> (parameters, slots).

One vector per quantity makes broadcast, allreduce, checksum and checkpoint one operation each, and keeps the
update a single XLA cluster; the formulas are those of Keras 3 and the tests compare with Keras step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

Slots = tuple[tf.Tensor, ...]


class Optimizer(NamedTuple):
    """An optimizer's name, its slot vectors, its epsilon, and its rule."""

    name: str
    slot_names: tuple[str, ...]
    epsilon: float
    """What keeps its divisor from zero, unless the user chooses; 0 for an optimizer that does not divide."""
    rule: Callable[[tf.Tensor, Slots, tf.Tensor, tf.Tensor, tf.Tensor, float], tuple[tf.Tensor, Slots]]

    def update(
        self,
        parameters: tf.Tensor,
        slots: Slots,
        gradient: tf.Tensor,
        step: tf.Tensor,
        learning_rate: tf.Tensor,
        epsilon: float = 0.0,
    ) -> tuple[tf.Tensor, Slots]:
        """Returns parameters and slots after a step.

        Args:
          parameters: float32 [P].
          slots: float32 [P] each, zeros before the first step.
          gradient: float32 [P].
          step: float32 scalar, 1 at the first step.
          learning_rate: float32 scalar.
          epsilon: 0 for the optimizer's own.
        """
        return self.rule(parameters, slots, gradient, step, learning_rate, epsilon or self.epsilon)


def clip_by_global_norm(gradient: tf.Tensor, norm: tf.Tensor, max_norm: float) -> tf.Tensor:
    """Scales a flat gradient [P] of L2 norm `norm` down to `max_norm` where it is longer (Pascanu et al. 2013)."""
    return gradient * (max_norm / tf.maximum(norm, max_norm))  # [P]


def _adam(
    parameters: tf.Tensor,
    slots: Slots,
    gradient: tf.Tensor,
    step: tf.Tensor,
    learning_rate: tf.Tensor,
    epsilon: float,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
) -> tuple[tf.Tensor, Slots]:
    """Adam, Kingma & Ba (2015), section 2's efficient form, https://arxiv.org/abs/1412.6980."""
    momentum, velocity = slots
    momentum += (gradient - momentum) * (1.0 - beta_1)  # [P]
    velocity += (tf.square(gradient) - velocity) * (1.0 - beta_2)  # [P]
    alpha = learning_rate * tf.sqrt(1.0 - beta_2**step) / (1.0 - beta_1**step)
    return parameters - alpha * momentum / (tf.sqrt(velocity) + epsilon), (momentum, velocity)


def _rmsprop(
    parameters: tf.Tensor,
    slots: Slots,
    gradient: tf.Tensor,
    step: tf.Tensor,
    learning_rate: tf.Tensor,
    epsilon: float,
    *,
    rho: float = 0.95,
) -> tuple[tf.Tensor, Slots]:
    """Centred RMSProp with the constants of Mnih et al. (2015), Extended Data Table 1; Graves (2013), section 4.4."""
    del step
    mean, mean_square = slots
    mean += (gradient - mean) * (1.0 - rho)  # [P]
    mean_square += (tf.square(gradient) - mean_square) * (1.0 - rho)  # [P]
    variance = mean_square - tf.square(mean)  # [P]
    return parameters - learning_rate * gradient / tf.sqrt(variance + epsilon), (mean, mean_square)


def _sgd(
    parameters: tf.Tensor,
    slots: Slots,
    gradient: tf.Tensor,
    step: tf.Tensor,
    learning_rate: tf.Tensor,
    epsilon: float,
) -> tuple[tf.Tensor, Slots]:
    """Plain stochastic gradient descent."""
    del step, epsilon
    return parameters - learning_rate * gradient, slots


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Optimizer("adam", ("momentum", "velocity"), 1e-7, _adam),
    "rmsprop": Optimizer("rmsprop", ("mean", "mean_square"), 0.01, _rmsprop),
    "sgd": Optimizer("sgd", (), 0.0, _sgd),
}
