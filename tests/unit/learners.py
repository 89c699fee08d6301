"""Builds small general learners and batches for the tests; real Keras networks, an allreduce that the test hands in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.base import Algorithm
from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.gradient import Compilation, UpdateParts
from hvd_dqn.learner.learner import NUM_STATISTICS, Clock, Learner, Report, StepSettings, no_clock
from hvd_dqn.learner.tensorflow import TensorFlowLearner
from hvd_dqn.networks.mlp import build
from hvd_dqn.networks.spec import NetworkSpec
from hvd_dqn.transition import Transition

FLOAT, BYTE, INT = np.dtype(np.float32), np.dtype(np.uint8), np.dtype(np.int32)

PLAIN: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "max_grad_norm": 0.0,
    "first_row": 0,
    "num_signals": 2,
    "loss": "mse",
    "double": False,
}
"""Settings of a learner that a test does not care about."""

PLAIN_GRAPH = Compilation(jit_compile=False)

GAMMA = 0.9
"""Of the batches built here."""

SIGNALS = np.zeros(2, np.float32)


def tabular_network(num_states: int, num_actions: int) -> keras.Model:
    """Returns a network whose kernel [S, A] is the Q table itself: one-hot, no bias."""
    s = keras.Input((), dtype="int32")
    x = keras.layers.CategoryEncoding(num_states, output_mode="one_hot")(s)
    x = keras.layers.Reshape((num_states,))(x)
    return keras.Model(s, keras.layers.Dense(num_actions, use_bias=False)(x))


def network_spec(
    shape: tuple[int, ...] = (4,),
    dtype: np.dtype = FLOAT,
    *,
    num_categories: int = 0,
    num_actions: int = 3,
    hidden_sizes: tuple[int, ...] = (8,),
    seed: int = 0,
    **changes: Any,
) -> NetworkSpec:
    """Returns what a network is told: four numbers, three actions and eight units where not said otherwise."""
    return NetworkSpec(shape, dtype, num_categories, num_actions, hidden_sizes, seed, **changes)


def small_mlp(seed: int = 0, num_actions: int = 3) -> keras.Model:
    """Returns the project's own MLP on four numbers."""
    return build(network_spec(num_actions=num_actions, seed=seed))


class MakeLearner(Protocol):
    """Builds either learner; given to each law that holds for both."""

    def __call__(self, network: keras.Model, batch_size: int, exchange: Exchange | None = None, **changes: Any) -> Any:
        """Returns a learner with `PLAIN` settings, overridden by `changes`; alone if there is no exchange."""


def make_learner(
    network: keras.Model,
    batch_size: int,
    exchange: Exchange | None = None,
    *,
    compilation: Compilation = PLAIN_GRAPH,
    algorithm: Algorithm | None = None,
    action_shape: tuple[int, ...] = (),
    clock: Clock = no_clock,
    flatten: Callable[[keras.Model], FlatNetwork] = FlatNetwork,
    **changes: Any,
) -> TensorFlowLearner:
    """Returns the general learner; see `MakeLearner`."""
    rule, settings = split_settings(batch_size, changes)
    flat = flatten(network)
    parts = UpdateParts(flat, algorithm or DQN(**rule), settings, compilation, action_shape, clock)
    return TensorFlowLearner(parts, None if exchange is None else exchange.allreduce_sum)


def split_settings(batch_size: int, changes: dict[str, Any]) -> tuple[dict[str, Any], StepSettings]:
    """Returns the arguments of `DQN`, and the settings of the step."""
    given = PLAIN | {"global_batch_size": batch_size, "batch_size_per_rank": batch_size} | changes
    rule = {name: given.pop(name) for name in ("loss", "double")}
    return rule, StepSettings(**given)


def learn(learner: Learner, batches: Transition, signals: np.ndarray = SIGNALS) -> Report:
    """Runs the updates with weights of one."""
    return learner.learn(batches, np.ones_like(batches.r_t), signals)


def random_batches(num_updates: int, batch_size: int, seed: int = 0, num_actions: int = 3) -> Transition:
    """Returns K batches for `small_mlp`, a third of them terminal."""
    rng = np.random.default_rng(seed)
    shape = (num_updates, batch_size)
    return Transition(
        s_tm1=rng.normal(size=(*shape, 4)).astype(np.float32),
        a_tm1=rng.integers(num_actions, size=shape).astype(np.int32),
        r_t=rng.normal(size=shape).astype(np.float32),
        discount_t=np.where(rng.integers(3, size=shape) == 0, 0.0, GAMMA).astype(np.float32),
        s_t=rng.normal(size=(*shape, 4)).astype(np.float32),
    )


def table_batch(s: int, a: int, r: float, s_next: int, discount: float = GAMMA) -> Transition:
    """Returns one batch of one transition of a tabular problem, columns [1, 1]."""
    return Transition(
        s_tm1=np.array([[s]], np.int32),
        a_tm1=np.array([[a]], np.int32),
        r_t=np.array([[r]], np.float32),
        discount_t=np.array([[discount]], np.float32),
        s_t=np.array([[s_next]], np.int32),
    )


def part_of(batches: Transition, first_row: int, rows: int) -> Transition:
    """Returns a rank's rows of K global batches."""
    return Transition(*(column[:, first_row : first_row + rows] for column in batches))


class Exchange:
    """A sum over ranks that keeps what this rank sends and answers with `reply` of it (itself by default)."""

    def __init__(self, reply: Callable[[np.ndarray], np.ndarray] = np.copy) -> None:
        self.sent: list[np.ndarray] = []
        self._reply = reply

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Answers inside a tf.function, as `TensorFlowLearner` asks."""
        return tf.ensure_shape(tf.numpy_function(self.answer, [vector], tf.float32), vector.shape)

    def answer(self, vector: np.ndarray) -> np.ndarray:
        """Answers an array."""
        self.sent.append(vector.copy())
        return self._reply(vector).astype(np.float32)

    def gradient(self, num_signals: int = 2) -> np.ndarray:
        """Returns the first vector's gradient part."""
        return self.sent[0][: -(NUM_STATISTICS + num_signals)]


class Stretches:
    """A clock that keeps what it is told: phase, start and end, one after the other."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, float, float]] = []

    def __call__(self, phases: Sequence[str], marks: Sequence[float]) -> None:
        """Listens; see `Clock`."""
        assert (len(marks) - 1) % len(phases) == 0
        for name, (start, end) in zip(itertools.cycle(phases), itertools.pairwise(marks)):
            self.heard.append((name, start, end))
