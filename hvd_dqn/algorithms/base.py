"""What the learner asks of an algorithm: action values for acting, and a loss per transition for learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from hvd_dqn.algorithms.noise import Noise

Values = Callable[..., Any]
"""A network with its parameters: observations [B, *observation_shape] -> what the network returns for them. A network
that takes fractions can be given them, float32 [B, N], as a second argument."""


class Batch(NamedTuple):
    """The transitions of one update as tensors, with the actions that are valid in their states."""

    s_tm1: tf.Tensor  # observation dtype [B, *observation_shape]
    a_tm1: tf.Tensor  # int32 [B], or [B, J] where an action has several joints
    r_t: tf.Tensor  # float32 [B]
    discount_t: tf.Tensor  # float32 [B], gamma, or 0 where s_t is terminal
    s_t: tf.Tensor  # observation dtype [B, *observation_shape]
    valid_tm1: tf.Tensor | None = None  # bool [B, A] or [B, J, A], at least one of each row; None if all are valid
    valid_t: tf.Tensor | None = None  # bool [B, A] or [B, J, A], at least one of each row; None if all are valid


class Losses(NamedTuple):
    """What an algorithm computes for each transition of a batch."""

    loss: tf.Tensor  # float32 [B]
    priority: tf.Tensor  # float32 [B], not negative: how much there is to learn, |td| for most algorithms
    q: tf.Tensor  # float32 [B], the online network's value of the action taken, for the metrics


class Algorithm(Protocol):
    """A rule by which a Q-network learns: pure TensorFlow functions that know neither ranks nor optimizers.

    It is built with those fields of the configuration that its `__init__` names.
    """

    outputs_per_action: int
    """Z, numbers that the network's head gives for each action: 1, atoms or quantiles."""
    takes_fractions: bool
    """Whether the network's outputs are quantiles at fractions that it is given (IQN)."""
    takes_joints: bool
    """Whether it learns actions of several joints: outputs [B, J, A], for MultiDiscrete actions. False if left out."""
    has_value_range: bool
    """Whether it represents returns from --value-min to --value-max alone."""
    native_rule: str | None
    """The name under which hvd_dqn/native has the same rule, None if it has not."""

    def action_values(self, outputs: Any) -> tf.Tensor:
        """Returns float32 [B, A], the action values in a network's outputs [B, A] (Z = 1) or [B, A, Z].

        With joints, both are [B, J, A]. In `keras.ops`, so that an export can apply it to symbolic outputs.
        """

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Computes the loss of each transition; no gradient may flow through its targets.

        Args:
          online: the network with the parameters that learn.
          target: the network with the target's parameters.
          batch: the transitions, columns [B, ...].
          noise: this update's random numbers.
        """
