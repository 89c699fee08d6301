"""An algorithm, a network and a replay that the package does not have, for the test of the seam between them."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from hvd_dqn.algorithms.base import Batch, Losses, Values
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.networks.mlp import torso
from hvd_dqn.networks.outputs import hidden_layers
from hvd_dqn.networks.spec import NetworkSpec
from hvd_dqn.replay.base import Sample
from hvd_dqn.replay.ring import RingReplay
from hvd_dqn.transition import Transition, TransitionForm


class FiftyOne:
    """Fifty-one outputs per action, each with a target of its own noise, and a second output that predicts rewards."""

    outputs_per_action = 51
    takes_fractions = False
    has_value_range = False
    native_rule: str | None = None

    def __init__(self, gamma: float) -> None:
        """Takes a field of the configuration, by its name."""
        assert gamma == 0.95

    def action_values(self, outputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Returns the mean of the outputs."""
        return tf.reduce_mean(outputs[0], axis=2)  # [B, A]

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Regresses on noisy one-step targets; see `Algorithm`."""
        best = tf.reduce_max(self.action_values(target(batch.s_t)), axis=1)  # [B]
        targets = (batch.r_t + batch.discount_t * best)[:, None] + 0.1 * noise.normal(51)  # [B, Z]
        outputs, rewards = online(batch.s_tm1)
        chosen = tf.gather(outputs, batch.a_tm1, batch_dims=1)  # [B, Z]
        error = tf.stop_gradient(targets) - chosen  # [B, Z]
        loss = tf.reduce_mean(tf.square(error), axis=1) + tf.square(rewards[:, 0] - batch.r_t)
        return Losses(loss, tf.reduce_mean(tf.abs(error), axis=1), tf.reduce_mean(chosen, axis=1))


def build_two_headed(spec: NetworkSpec) -> keras.Model:
    """Returns a network with two outputs: the actions' [B, A, Z], and a prediction of the reward [B, 1]."""
    inputs = keras.Input(spec.observation_shape, dtype=np.dtype(spec.observation_dtype).name)
    features = hidden_layers(torso(inputs, spec), spec.hidden_sizes, spec)
    first, second = (keras.initializers.HeUniform(seed=spec.seed + number) for number in (98, 99))
    outputs = layers.Dense(spec.num_actions * spec.outputs_per_action, kernel_initializer=first, name="outputs")(
        features
    )
    outputs = layers.Reshape((spec.num_actions, spec.outputs_per_action))(outputs)
    rewards = layers.Dense(1, kernel_initializer=second, name="rewards")(features)
    return keras.Model(inputs, [outputs, rewards])


class PriorityReplay(RingReplay):
    """Draws in proportion to the priorities; a checkpoint holds them."""

    prioritized = True

    def __init__(
        self,
        capacity: int,
        form: TransitionForm,
        rng: np.random.Generator,
    ) -> None:
        """Gives every place the priority of a new transition."""
        super().__init__(capacity, form, rng)
        self._priorities = np.ones(capacity, np.float32)

    def add(self, batch: Transition) -> None:
        """Stores a batch with the priority of new transitions."""
        self._priorities[np.arange(self.added, self.added + len(batch.a_tm1)) % self.capacity] = 1.0
        super().add(batch)

    def sample(self, updates: int, batch_size: int) -> Sample:
        """Draws in proportion to the priorities."""
        shares = self._priorities[: len(self)].astype(np.float64)
        shares /= shares.sum()
        indices = self._rng.choice(len(self), size=(updates, batch_size), p=shares)
        sample = self.gather(indices)
        sample.probabilities[:] = shares[indices]
        return sample

    def update_priorities(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        """Takes the learner's priorities."""
        self._priorities[indices.ravel()] = priorities.ravel() + 1e-3

    def extra_state(self) -> dict[str, np.ndarray]:
        """Returns the priorities, oldest transition first."""
        places = np.arange(self.added - len(self), self.added) % self.capacity
        return {"priorities": self._priorities[places]}

    def load_extra_state(self, extra: dict[str, np.ndarray]) -> None:
        """Puts the priorities back."""
        places = np.arange(self.added - len(self), self.added) % self.capacity
        self._priorities[places] = extra["priorities"]
