"""Builds what learns and what acts: algorithm, network and learner."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from hvd_dqn.algorithms.base import Algorithm
from hvd_dqn.config import Config
from hvd_dqn.distributed.agreement import raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.runtime import Runtime, start_compiler
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import UserError
from hvd_dqn.learner.action_values import ActionValues, TensorFlowActionValues
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.gradient import Compilation, UpdateParts
from hvd_dqn.learner.learner import Learner, StepSettings
from hvd_dqn.learner.noisy import NoisyNetwork
from hvd_dqn.learner.served import ServedLearner
from hvd_dqn.learner.served_async import AsynchronousLearner
from hvd_dqn.learner.tensorflow import TensorFlowLearner
from hvd_dqn.networks.spec import NetworkSpec, choose_network
from hvd_dqn.run.profile import IterationProfile
from hvd_dqn.seeding import integer_seed
from hvd_dqn.shares import first_index, share
from hvd_dqn.strategies import is_asynchronous, updates_alone
from hvd_dqn.training.parts import build_model, find_replay, make_algorithm
from hvd_dqn.training.signals import Signals


@dataclass(frozen=True)
class Agent:
    """The learner and what acts with its parameters."""

    learner: Learner
    chosen: str
    """tensorflow or native."""
    network: str
    """The registered name."""
    action_values: Callable[[bool], ActionValues]
    """action_values(follow): a way to act with the learner's present parameters. With `follow` they may be used where
    they lie: for a caller that acts while no update runs, and loads no others."""


def build_agent(config: Config, runtime: Runtime, spaces: Spaces, profile: IterationProfile) -> Agent:
    """Builds the network and its learner; a collective.

    Raises:
      UserError: on all ranks, if the learner that is asked for is not for this job.
    """
    communicator = runtime.communicator
    flat, algorithm, network = build_network(config, communicator, spaces)  # COLLECTIVE
    alone = updates_alone(config, communicator.size)
    settings = step_settings(config, communicator.rank, communicator.size)
    chosen = choose_learner(config, runtime, network, algorithm, spaces)  # COLLECTIVE
    if chosen == "native":
        from hvd_dqn.native.build import NativeAgent

        assert algorithm.native_rule is not None
        native = NativeAgent(flat.layout, flat.initial_parameters(), spaces.num_categories, spaces.observation_dtype)
        own = native.learner(
            settings,
            rule=algorithm.native_rule,
            loss=config.algorithm.loss,
            mpi=None if alone else communicator.mpi_handles,
            clock=profile.add_in_turn,
        )
        return Agent(own, chosen, network, lambda follow: native.action_values(own, follow=follow))
    start_compiler()
    if not alone:
        communicator.start_horovod()  # COLLECTIVE
    # XLA is the faster one for small products; oneDNN is for convolutions on a CPU.
    jit_compile = runtime.on_gpu or not flat.has_convolutions
    loss_scale = config.network.loss_scale if config.network.precision == "float16" else 1.0
    # A rank that updates alone has noise of its own: its rows are a whole batch.
    noise = integer_seed(config.job.seed, "noise", *([communicator.rank] if alone else []))
    compilation = Compilation(jit_compile, loss_scale, noise)
    parts = UpdateParts(flat, algorithm, settings, compilation, spaces.action_shape, profile.add_in_turn)
    learner: Learner
    if runtime.servers is not None:
        served = AsynchronousLearner if is_asynchronous(config) else ServedLearner
        learner = served(parts, runtime.servers)
    else:
        allreduce_sum = None if alone or communicator.size == 1 else communicator.allreduce_in_graph
        learner = TensorFlowLearner(parts, allreduce_sum)
    return Agent(
        learner,
        chosen,
        network,
        lambda follow: TensorFlowActionValues(
            flat, algorithm, learner.online, integer_seed(config.job.seed, "acting noise")
        ),
    )


def build_network(config: Config, communicator: Communicator, spaces: Spaces) -> tuple[FlatNetwork, Algorithm, str]:
    """Builds the network; a collective.

    Returns:
      The network with its initial parameters, the algorithm whose outputs it has, and its registered name.

    Raises:
      UserError: on all ranks, if it cannot be built for these spaces.
    """
    algorithm = raise_on_any_rank(communicator, lambda: make_algorithm(config))  # COLLECTIVE
    network = choose_network(config.network.network, spaces.network_shape, spaces.observation_dtype)
    spec = NetworkSpec(
        spaces.network_shape,
        spaces.observation_dtype,
        spaces.num_categories,
        spaces.num_actions,
        config.network.hidden_sizes,
        integer_seed(config.job.seed, "network"),
        algorithm.outputs_per_action,
        config.network.dueling,
        algorithm.takes_fractions,
        config.network.precision,
        spaces.largest_integer,
        config.network.impala_width,
        config.network.layer_norm,
        config.network.spectral_norm,
        len(spaces.joint_bins),
    )
    model = raise_on_any_rank(communicator, lambda: build_model(network, spec))  # COLLECTIVE
    masked_actions = spaces.num_actions if spaces.masked else 0
    flat = (NoisyNetwork if config.network.noisy else FlatNetwork)(model, masked_actions, spaces.valid_bins)
    return flat, algorithm, network


def step_settings(config: Config, rank: int, size: int) -> StepSettings:
    """Returns the settings of a rank's updates; alone, the batch is the rank's own share."""
    batch = config.replay.global_batch_size
    if updates_alone(config, size):
        batch, rank, size = share(batch, rank, size), 0, 1
    return StepSettings(
        optimizer=config.learner.optimizer,
        optimizer_epsilon=config.learner.optimizer_epsilon,
        learning_rate=config.learner.learning_rate,
        max_grad_norm=config.learner.max_grad_norm,
        batch_size_per_rank=share(batch, rank, size),
        first_row=first_index(batch, rank, size),
        global_batch_size=batch,
        num_signals=len(Signals()),
        weighted=find_replay(config).prioritized,
        rank=rank,
        size=size,
    )


def choose_learner(config: Config, runtime: Runtime, network: str, algorithm: Algorithm, spaces: Spaces) -> str:
    """Returns which learner all ranks use; a collective.

    Raises:
      UserError: on all ranks, if the native learner is asked for and a rank cannot use it.
    """
    wanted = config.learner.learner
    if wanted == "tensorflow" or runtime.servers is not None:
        return "tensorflow"
    own = _native_obstacle(config, runtime, network, algorithm, spaces)
    obstacles = runtime.communicator.gather_json(own)  # COLLECTIVE
    found = next((f"on rank {rank}: {text}" for rank, text in enumerate(obstacles) if text), "")
    if found and wanted == "native":
        raise UserError(
            f"the native learner cannot run this job, {found}. Give --learner tensorflow, which runs any job; "
            "a run that began on the native learner resumes on it with other rounding from there on"
        )
    return "tensorflow" if found else "native"


def _native_obstacle(config: Config, runtime: Runtime, network: str, algorithm: Algorithm, spaces: Spaces) -> str:
    """Returns why this rank cannot use the native learner, "" if it can."""
    package = importlib.util.find_spec("hvd_dqn.native")
    if package is None or package.origin is None:  # a folder that holds bytecode alone counts as a package
        return "this installation does not have it"
    from hvd_dqn.native.build import Demands, obstacle

    communicator: Communicator = runtime.communicator
    return obstacle(
        Demands(
            network=network,
            dueling=config.network.dueling,
            noisy=config.network.noisy,
            weighted=find_replay(config).prioritized,
            rule=algorithm.native_rule,
            precision=config.network.precision,
            on_gpu=runtime.on_gpu,
            size=1 if updates_alone(config, communicator.size) else communicator.size,
            has_mpi=communicator.mpi_handles is not None,
            action_shape=spaces.action_shape,
            masked=spaces.masked,
        )
    )
