"""Builds small learners and batches for the tests; real Keras networks, an allreduce that the test hands in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvd_dqn.agent.graph_learner import GraphLearner
from hvd_dqn.agent.learner import NUM_STATISTICS
from hvd_dqn.agent.networks import build_network
from hvd_dqn.transition import Transition


def tabular_network(num_states: int, num_actions: int) -> keras.Model:
    """Returns a network whose kernel [S, A] is the Q table itself: one-hot, no bias."""
    s = keras.Input((), dtype="int32")
    x = keras.layers.CategoryEncoding(num_states, output_mode="one_hot")(s)
    x = keras.layers.Reshape((num_states,))(x)
    return keras.Model(s, keras.layers.Dense(num_actions, use_bias=False)(x))


def small_mlp(seed: int = 0, num_actions: int = 3) -> keras.Model:
    """Returns the project's own MLP on four numbers."""
    return build_network("mlp", (4,), np.dtype(np.float32), 0, num_actions, (8,), seed)


def make_learner(network: keras.Model, batch_size: int, **changes: Any) -> GraphLearner:
    """Returns a one-rank learner with plain settings; `changes` override them."""
    settings: dict[str, Any] = {
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "loss": "mse",
        "gamma": 0.9,
        "double_dqn": False,
        "max_grad_norm": 0.0,
        "global_batch_size": batch_size,
        "batch_size_per_rank": batch_size,
        "num_flags": 2,
        "allreduce_sum": lambda vector: vector,
        "jit_compile": False,
    }
    return GraphLearner(network, **(settings | changes))


def random_batches(num_updates: int, batch_size: int, seed: int = 0, num_actions: int = 3) -> Transition:
    """Returns K batches for `small_mlp`, a third of them terminal and another third truncated."""
    rng = np.random.default_rng(seed)
    shape = (num_updates, batch_size)
    ending = rng.integers(3, size=shape)
    return Transition(
        s_tm1=rng.normal(size=(*shape, 4)).astype(np.float32),
        a_tm1=rng.integers(num_actions, size=shape).astype(np.int32),
        r_t=rng.normal(size=shape).astype(np.float32),
        terminated=ending == 0,
        truncated=ending == 1,
        s_t=rng.normal(size=(*shape, 4)).astype(np.float32),
    )


def table_batch(
    s: int, a: int, r: float, s_next: int, *, terminated: bool = False, truncated: bool = False
) -> Transition:
    """Returns one batch of one transition of a tabular problem, columns [1, 1]."""
    return Transition(
        s_tm1=np.array([[s]], np.int32),
        a_tm1=np.array([[a]], np.int32),
        r_t=np.array([[r]], np.float32),
        terminated=np.array([[terminated]]),
        truncated=np.array([[truncated]]),
        s_t=np.array([[s_next]], np.int32),
    )


class Capture:
    """An allreduce that keeps what this rank sends and answers with `reply` of it (itself by default)."""

    def __init__(self, reply: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.sent: list[np.ndarray] = []
        self._reply = reply or (lambda vector: vector)

    def __call__(self, vector: tf.Tensor) -> tf.Tensor:
        def exchange(local: np.ndarray) -> np.ndarray:
            self.sent.append(local.copy())
            return self._reply(local).astype(np.float32)

        answer = tf.numpy_function(exchange, [vector], tf.float32)
        return tf.ensure_shape(answer, vector.shape)

    def gradient(self, num_flags: int = 2) -> np.ndarray:
        """Returns the first vector's gradient part."""
        return self.sent[0][: -(NUM_STATISTICS + num_flags)]


FLAGS = np.zeros(2, np.float32)
