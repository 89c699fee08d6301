"""A trained agent, read from a run: its environment, its network, and the weights of one of its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hvd_dqn.algorithms.base import Algorithm
from hvd_dqn.checkpoint.contents import Checkpoint, read_checkpoint
from hvd_dqn.checkpoint.listing import find_checkpoints, step_and_copy
from hvd_dqn.checkpoint.storage import Location, open_location
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.config import Config
from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.learner.action_values import ActionValues, TensorFlowActionValues
from hvd_dqn.learner.flat_network import FlatNetwork
from hvd_dqn.learner.learner import Vector
from hvd_dqn.locations import is_url
from hvd_dqn.run.directory import RunDirectory
from hvd_dqn.seeding import integer_seed
from hvd_dqn.training.agent import build_network
from hvd_dqn.training.environments import find_environment

BEST, LAST = "best", "last"
"""The checkpoint with the highest score, and the newest one."""


@dataclass(frozen=True)
class Trained:
    """An agent that has been trained."""

    config: Config
    maker: EnvironmentMaker
    """Of the environment that it was trained on."""
    spaces: Spaces
    network: FlatNetwork
    network_name: str
    """As registered, or the place of one of the user's own."""
    algorithm: Algorithm
    values: ActionValues
    """Its action values, under `parameters`."""
    parameters: Vector
    """float32 [P]."""
    env_steps: int
    """Of its checkpoint."""
    score: float | None
    """Mean return of the greedy evaluation at this step, if there was one."""
    passed_over: list[str]
    """One line for each checkpoint that was to be used and cannot be."""


class Weights(NamedTuple):
    """The parameters of a trained agent."""

    parameters: np.ndarray  # float32 [P]
    env_steps: int
    score: float | None  # mean return of the greedy evaluation at this step, if there was one
    passed_over: list[str]  # one line for each checkpoint that was to be used and cannot be


def load_trained(place: str, config: Config, which: str, communicator: Communicator, limit: float = 0.0) -> Trained:
    """Reads a checkpoint of a run; a collective.

    Args:
      place: the run directory, or the checkpoint path of the run.
      config: the configuration of the run.
      which: best, last, or the env steps of a checkpoint.
      communicator: of the ranks that ask for it.
      limit: seconds after which an environment that does not reset ends the job; 0 for none.

    Raises:
      UserError: on all ranks, if there is no such checkpoint, or its environment or network cannot be made.
    """

    def read() -> Weights:
        checkpoint, passed_over = _read(checkpoints_of(place, config), which)
        return Weights(checkpoint.learner["online"], checkpoint.env_steps, checkpoint.score, passed_over)

    return build_trained(place, config, read, communicator, limit)  # COLLECTIVE


def build_trained(
    place: str,
    config: Config,
    read: Callable[[], Weights],
    communicator: Communicator,
    limit: float = 0.0,
) -> Trained:
    """Builds a trained agent; a collective. Its environment and network are made before its parameters are read.

    Args:
      place: where the parameters are from, for messages.
      config: the configuration of the run.
      read: on rank 0, returns the parameters.
      communicator: of the ranks that ask for it.
      limit: seconds after which an environment that does not reset ends the job; 0 for none.

    Raises:
      UserError: on all ranks, if its environment or network cannot be made, or the parameters do not fit.
    """
    maker, spaces = raise_on_any_rank(communicator, lambda: find_environment(config, communicator, limit))  # COLLECTIVE
    flat, algorithm, name = build_network(config, communicator, spaces)  # COLLECTIVE
    online: list[np.ndarray] = []

    def read_fitting() -> tuple[int, float | None, list[str]]:
        found = read()
        if found.parameters.shape != (flat.layout.total,):
            raise UserError(
                f"the checkpoint at env step {found.env_steps:,} of {place} has {found.parameters.size:,} parameters, "
                f"and the network that its config.json describes {flat.layout.total:,}: the environment or the network "
                "has changed since"
            )
        online.append(found.parameters)
        return found.env_steps, found.score, found.passed_over

    env_steps, score, passed_over = on_root(communicator, read_fitting)  # COLLECTIVE
    parameters = communicator.broadcast(online[0] if online else flat.initial_parameters())  # COLLECTIVE
    noise_seed = integer_seed(config.job.seed, "acting noise")
    values = TensorFlowActionValues(flat, algorithm, parameters, noise_seed)
    return Trained(config, maker, spaces, flat, name, algorithm, values, parameters, env_steps, score, passed_over)


def checkpoints_of(place: str, config: Config) -> Location:
    """Returns where a run saves its checkpoints; see `load_trained`."""
    if is_url(place):
        return open_location(place, "run")
    return RunDirectory(Path(place)).checkpoints_at(config.job.checkpoint_path)


def _read(folder: Location, which: str) -> tuple[Checkpoint, list[str]]:
    """Reads the checkpoint that is asked for.

    Raises:
      UserError: if there is none.
    """
    store: CheckpointStore[Any] = CheckpointStore(folder, keep=1)
    if which == LAST:
        return store.newest_good(damaged={})
    if which == BEST:
        best, passed_over = store.best()
        if best is not None:
            return best, passed_over
        newest, others = store.newest_good(damaged={})
        return newest, passed_over + others
    names = find_checkpoints(folder)[0]
    found = [name for name in names if which.isdigit() and step_and_copy(name)[0] == int(which)]
    if not found:
        steps = ", ".join(sorted({f"{step_and_copy(name)[0]}" for name in names}, key=int)) or "none"
        raise UserError(f"no checkpoint {which!r} in {folder}: give best, last or one of its env steps ({steps})")
    try:
        return read_checkpoint(folder / found[-1]), []
    except CheckpointError as error:
        raise UserError(f"checkpoint {folder / found[-1]} cannot be used: {error}") from None
