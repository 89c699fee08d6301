"""Action values for acting and for evaluation."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.base import Algorithm
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.selection import of_valid
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.graph_call import GraphCall
from hvd_dqn.learner.learner import Vector


class ActionValues(Protocol):
    """A network's action values under the parameters loaded last."""

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""

    def __call__(self, s: np.ndarray, draw: int | None = None) -> np.ndarray:
        """Returns action values float32 [B, A], -inf for actions that the observations' masks do not allow.

        Where an action has several joints: [B, J, A], -inf for bins that a joint does not have.

        Args:
          s: stored observations [B, ...].
          draw: number of the noise of a noisy network; None for its mean weights.
        """


class TensorFlowActionValues:
    """Any network's action values, computed by TensorFlow."""

    def __init__(self, network: FlatNetwork, algorithm: Algorithm, parameters: Vector, noise_seed: int = 0) -> None:
        """Traces the forward pass, for any number of observations.

        Args:
          network: the network.
          algorithm: finds the action values in the network's outputs.
          parameters: float32 [P], loaded to begin with.
          noise_seed: of a noisy network's noise.
        """
        self._dtype = network.observation_dtype
        signature = [
            tf.TensorSpec([network.layout.total], tf.float32),
            tf.TensorSpec([None, *network.stored_shape], self._dtype),
        ]

        def values(weights: list[tf.Tensor], s: tf.Tensor) -> list[tf.Tensor]:
            observation, valid = network.unpack(s)
            return [of_valid(algorithm.action_values(network.forward(weights, observation)), valid)]

        # XLA costs more per call than it saves in a forward pass.
        self._values = self._noisy_values = GraphCall(
            lambda parameters, s: values(network.weights(network.layout.split(parameters)), s),
            signature,
            jit_compile=False,
        )
        self._draws = network.noisy
        if self._draws:

            def noisy(parameters: tf.Tensor, s: tf.Tensor, draw: tf.Tensor) -> list[tf.Tensor]:
                return values(network.weights(network.layout.split(parameters), Noise(noise_seed, draw, 0, 1, 1)), s)

            self._noisy_values = GraphCall(noisy, [*signature, tf.TensorSpec([], tf.int32)], jit_compile=False)
        self.load(parameters)

    def load(self, parameters: Vector) -> None:
        """Takes parameters [P]."""
        self._parameters = tf.convert_to_tensor(parameters)

    def __call__(self, s: np.ndarray, draw: int | None = None) -> np.ndarray:
        """Returns action values; see `ActionValues`."""
        inputs = self._parameters, tf.constant(s, self._dtype)
        if draw is None or not self._draws:
            (values,) = self._values(*inputs)
        else:
            (values,) = self._noisy_values(*inputs, tf.constant(draw % 2**31, tf.int32))
        return values.numpy()
