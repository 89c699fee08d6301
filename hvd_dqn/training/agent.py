"""Builds what learns and what acts: the network, its learner, and the worker that overlaps learning with collecting."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from hvd_dqn.config import Config
from hvd_dqn.distributed.agreement import raise_on_any_rank
from hvd_dqn.distributed.runtime import Runtime, start_compiler
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.learner.action_values import ActionValues, make_action_values
from hvd_dqn.learner.graph_gradients import GraphGradients
from hvd_dqn.learner.graph_network import GraphNetwork
from hvd_dqn.learner.learner import Learner
from hvd_dqn.learner.tensorflow import GraphLearner
from hvd_dqn.native.compiled_cnn import CompiledCNN
from hvd_dqn.native.compiled_gradients import make_host_gradients
from hvd_dqn.native.compiled_mlp import make_mlp
from hvd_dqn.native.learner import HostLearner, MakeGradients
from hvd_dqn.native.library import load_kernels
from hvd_dqn.native.numpy_mlp import NumpyMLP
from hvd_dqn.networks.build import build_network, choose_backend
from hvd_dqn.run.profile import IterationProfile
from hvd_dqn.seeding import integer_seed
from hvd_dqn.training.overlap import InlineWorker, ThreadWorker, Worker
from hvd_dqn.training.signals import Signals


@dataclass(frozen=True)
class Agent:
    """The learner and what acts with its parameters."""

    learner: Learner
    backend: str
    on_host: NumpyMLP | None
    network: GraphNetwork

    def action_values(self, *, follow: bool) -> ActionValues:
        """Returns a way to act, with the learner's present parameters or, if it follows, those at the time."""
        return make_action_values(self.learner.online, self.on_host, self.network, follow=follow)


def build_agent(
    config: Config, runtime: Runtime, kind: str, spaces: Spaces, batch_size_per_rank: int, profile: IterationProfile
) -> Agent:
    """Builds the network and its learner; a collective.

    Raises:
      UserError: on all ranks, if the backend is not for this network or the compiled kernels are missing.
    """
    precision = config.network.precision
    kernels = raise_on_any_rank(runtime.communicator, load_kernels)  # COLLECTIVE
    choose = partial(
        choose_backend,
        config.network.backend,
        kind,
        on_gpu=runtime.on_gpu,
        precision=precision,
        threads=runtime.threads,
        compiled=bool(kernels.products_supported()),
    )
    backend = raise_on_any_rank(runtime.communicator, choose)  # COLLECTIVE, as hosts may have unlike processors
    model = build_network(
        kind,
        spaces.observation_shape,
        spaces.observation_dtype,
        spaces.num_categories,
        spaces.num_actions,
        config.network.hidden_sizes,
        integer_seed(config.job.seed, "network"),
        precision,
    )
    rule: dict[str, Any] = {
        "loss": config.learner.loss,
        "gamma": config.learner.gamma,
        "double_dqn": config.learner.double_dqn,
        "global_batch_size": config.replay.global_batch_size,
    }
    step: dict[str, Any] = {
        "optimizer": config.learner.optimizer,
        "learning_rate": config.learner.learning_rate,
        "max_grad_norm": config.learner.max_grad_norm,
        "num_flags": len(Signals()),
        "clock": profile.add_in_turn,
    }
    network = GraphNetwork(model, **rule, loss_scale=config.network.loss_scale if precision == "float16" else 1.0)
    layout, initial = network.layout, network.layout.flatten_variables(model)
    on_host: NumpyMLP | None = None
    if kind == "mlp" and precision == "float32":
        on_host = make_mlp(kernels, layout, spaces.num_categories, spaces.observation_dtype, runtime.threads)
    elif backend == "numpy":
        on_host = CompiledCNN(kernels, layout, spaces.observation_shape, spaces.observation_dtype)
    make_gradients: MakeGradients
    if backend == "tensorflow":
        start_compiler()
        learner: Learner = GraphLearner(
            network,
            initial,
            batch_size_per_rank=batch_size_per_rank,
            allreduce_sum=runtime.communicator.allreduce_sum,
            jit_compile=kind == "mlp" or runtime.on_gpu,
            **step,
        )
        return Agent(learner, backend, on_host, network)
    if backend == "numpy":
        assert on_host is not None
        make_gradients = partial(make_host_gradients, on_host, batch_size_per_rank=batch_size_per_rank, **rule)
    else:
        make_gradients = partial(GraphGradients, network, batch_size_per_rank=batch_size_per_rank)
    learner = HostLearner(
        kernels,
        layout,
        initial,
        make_gradients,
        make_rounds=runtime.communicator.make_rounds,
        compiled_exchange=runtime.communicator.compiled_exchange,
        take_memory=runtime.communicator.take_memory,
        **step,
    )
    return Agent(learner, backend, on_host, network)


def make_worker(config: Config, runtime: Runtime, agent: Agent) -> Worker:
    """Gives learning a thread where it may run beside collecting, a core is free, and Python's lock does not bar it.

    TensorFlow and compiled updates compute without that lock; NumPy's many short calls take it in turn with
    environments in this process.
    """
    locked = agent.backend == "numpy" and isinstance(agent.learner, HostLearner) and not agent.learner.in_one_call
    apart = not locked or config.environment.vectorization == "async"
    return ThreadWorker() if config.learner.policy_lag and runtime.threads > 1 and apart else InlineWorker()
