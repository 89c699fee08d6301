"""Builds small learners and batches for the tests; real Keras networks, an exchange that the test hands in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.communicator import Produce, Rounds, SingleCommunicator
from hvd_dqn.learner.graph_gradients import GraphGradients
from hvd_dqn.learner.graph_network import GraphNetwork
from hvd_dqn.learner.learner import NUM_STATISTICS
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.learner.tensorflow import GraphLearner
from hvd_dqn.native.compiled_cnn import CompiledCNN
from hvd_dqn.native.compiled_gradients import make_host_gradients
from hvd_dqn.native.compiled_mlp import CompiledMLP
from hvd_dqn.native.host_gradients import HostGradients
from hvd_dqn.native.learner import HostLearner, MakeGradients
from hvd_dqn.native.library import load_kernels
from hvd_dqn.native.numpy_mlp import NumpyMLP
from hvd_dqn.networks.build import build_network
from hvd_dqn.transition import Transition

KERNELS = load_kernels()
PASSES = [NumpyMLP, CompiledMLP] if KERNELS.products_supported() else [NumpyMLP]
"""The ways to compute an MLP in host memory on this processor, the preferred one last."""

PLAIN: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "loss": "mse",
    "gamma": 0.9,
    "double_dqn": False,
    "max_grad_norm": 0.0,
    "num_flags": 2,
}
"""Settings of a learner that a test does not care about."""


def tabular_network(num_states: int, num_actions: int) -> keras.Model:
    """Returns a network whose kernel [S, A] is the Q table itself: one-hot, no bias."""
    s = keras.Input((), dtype="int32")
    x = keras.layers.CategoryEncoding(num_states, output_mode="one_hot")(s)
    x = keras.layers.Reshape((num_states,))(x)
    return keras.Model(s, keras.layers.Dense(num_actions, use_bias=False)(x))


def small_mlp(seed: int = 0, num_actions: int = 3) -> keras.Model:
    """Returns the project's own MLP on four numbers."""
    return build_network("mlp", (4,), np.dtype(np.float32), 0, num_actions, (8,), seed)


class MakeLearner(Protocol):
    """Builds either learner: what a law that holds for both is given."""

    def __call__(self, network: keras.Model, batch_size: int, exchange: Exchange | None = None, **changes: Any) -> Any:
        """Returns a learner with `PLAIN` settings, overridden by `changes`; alone if there is no exchange."""


def make_learner(
    network: keras.Model,
    batch_size: int,
    exchange: Exchange | None = None,
    *,
    jit_compile: bool = False,
    **changes: Any,
) -> GraphLearner:
    """Returns TensorFlow's learner; see `MakeLearner`."""
    rule, step, shapes = _settings(batch_size, changes)
    passes = GraphNetwork(network, **rule)
    return GraphLearner(
        passes,
        passes.layout.flatten_variables(network),
        allreduce_sum=SingleCommunicator().allreduce_sum if exchange is None else exchange.allreduce_sum,
        jit_compile=jit_compile,
        **step | shapes,
    )


def make_numpy_learner(
    network: keras.Model,
    batch_size: int,
    exchange: Exchange | None = None,
    *,
    passes: type[NumpyMLP] = PASSES[-1],
    compiled: bool = True,
    **changes: Any,
) -> HostLearner:
    """Returns the host's learner on an MLP's gradients computed there, in one call each or not; see `MakeLearner`."""
    rule, step, shapes = _settings(batch_size, changes)
    make_gradients = partial(
        make_host_gradients if compiled else HostGradients, host_network(network, passes), **rule, **shapes
    )
    return _host_learner(network, make_gradients, exchange, **step)


def make_mixed_learner(
    network: keras.Model, batch_size: int, exchange: Exchange | None = None, **changes: Any
) -> HostLearner:
    """Returns the host's learner on TensorFlow's gradients; see `MakeLearner`."""
    rule, step, shapes = _settings(batch_size, changes)
    return _host_learner(network, partial(GraphGradients, GraphNetwork(network, **rule), **shapes), exchange, **step)


def _host_learner(
    network: keras.Model,
    make_gradients: MakeGradients,
    exchange: Exchange | None,
    initial: np.ndarray | None = None,
    **step: Any,
) -> HostLearner:
    layout = ParameterLayout(network)
    communicator = SingleCommunicator() if exchange is None else exchange
    initial = layout.flatten_variables(network) if initial is None else initial
    rounds: dict[str, Any] = {"make_rounds": communicator.make_rounds}
    if isinstance(communicator, SingleCommunicator):
        rounds["compiled_exchange"] = communicator.compiled_exchange
    return HostLearner(KERNELS, layout, initial, make_gradients, **rounds, **step)


def host_network(network: keras.Model, passes: type[NumpyMLP] = PASSES[-1]) -> NumpyMLP:
    """Returns a Keras network's passes in host memory; a CNN's whatever the passes of an MLP are to be."""
    layout, dtype = ParameterLayout(network), np.dtype(network.inputs[0].dtype)
    if any(isinstance(layer, keras.layers.Conv2D) for layer in network.layers):
        return CompiledCNN(KERNELS, layout, network.input_shape[1:], dtype)
    encodings = [layer for layer in network.layers if isinstance(layer, keras.layers.CategoryEncoding)]
    num_categories = encodings[0].num_tokens if encodings else 0
    return passes(KERNELS, layout, num_categories, dtype)


def _settings(batch_size: int, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Returns the rule of the gradient, the settings of the step, and the batch's size."""
    settings = PLAIN | {"global_batch_size": batch_size, "batch_size_per_rank": batch_size} | changes
    names = ("loss", "gamma", "double_dqn", "global_batch_size", "loss_scale")
    rule = {name: settings.pop(name) for name in names if name in settings}
    shapes = {"batch_size_per_rank": settings.pop("batch_size_per_rank")}
    return rule, settings, shapes


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


class Exchange:
    """A sum over ranks that keeps what this rank sends and answers with `reply` of it (itself by default)."""

    def __init__(self, reply: Callable[[np.ndarray], np.ndarray] = np.copy) -> None:
        self.sent: list[np.ndarray] = []
        self._reply = reply

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Answers inside a tf.function, as `GraphLearner` asks."""
        return tf.ensure_shape(tf.numpy_function(self._answer, [vector], tf.float32), vector.shape)

    def make_rounds(self, length: int, produce: Produce, calls_tensorflow: bool = False) -> Rounds:
        """Answers round by round, as `HostLearner` asks."""

        def run(rounds: int) -> np.ndarray:
            total = np.zeros(length, np.float32)
            for k in range(rounds):
                total = self._answer(produce(k, total))
            return total

        return run

    def gradient(self, num_flags: int = 2) -> np.ndarray:
        """Returns the first vector's gradient part."""
        return self.sent[0][: -(NUM_STATISTICS + num_flags)]

    def _answer(self, vector: np.ndarray) -> np.ndarray:
        self.sent.append(vector.copy())
        return self._reply(vector).astype(np.float32)


class Stretches:
    """A clock that keeps what it is told: phase, start and end, one after the other."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, float, float]] = []

    def __call__(self, phases: Sequence[str], marks: Sequence[float]) -> None:
        """Listens; see `Clock`."""
        assert (len(marks) - 1) % len(phases) == 0
        for name, (start, end) in zip(itertools.cycle(phases), itertools.pairwise(marks)):
            self.heard.append((name, start, end))


PLAIN_RULE: dict[str, Any] = {"loss": "mse", "gamma": 0.9, "double_dqn": False, "global_batch_size": 4}
"""The part of `PLAIN` that a gradient follows."""

FLAGS = np.zeros(2, np.float32)
