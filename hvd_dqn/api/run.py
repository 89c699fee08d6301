"""A trained agent, and the records of its run."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from hvd_dqn.cli.arguments import parse
from hvd_dqn.cli.evaluate import place_and_checkpoint
from hvd_dqn.distributed.cores import usable_cores
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.distributed.runtime import start
from hvd_dqn.errors import UserError
from hvd_dqn.locations import is_url
from hvd_dqn.run.directory import RunDirectory, read_config_of

if TYPE_CHECKING:
    from hvd_dqn.config import Config
    from hvd_dqn.training.trained import Trained


@dataclass(frozen=True)
class Run:
    """A run, and the agent of one of its checkpoints.

    Examples:
      >>> import hvd_dqn
      >>> run = hvd_dqn.load("runs/CartPole-v1/first")
      >>> run  # doctest: +ELLIPSIS
      <run ...runs/CartPole-v1/first of CartPole-v1: checkpoint at env step ...>
      >>> env = run.environment()
      >>> observation, info = env.reset(seed=1)
      >>> run.action_values(observation).shape
      (2,)
      >>> int(run.policy(observation)) in (0, 1)
      True
    """

    place: str
    """The run directory or checkpoint path."""
    agent: Trained

    def __repr__(self) -> str:
        """Returns one line, which a notebook shows."""
        score = "" if self.agent.score is None else f", mean return {self.agent.score:.2f}"
        return f"<run {self.place} of {self.config.environment.env}: checkpoint at env step {self.env_steps:,}{score}>"

    @property
    def config(self) -> Config:
        """Returns the configuration that the run was trained with."""
        return self.agent.config

    @property
    def env_steps(self) -> int:
        """Returns the env steps of the checkpoint."""
        return self.agent.env_steps

    def environment(self) -> gym.Env[Any, Any]:
        """Makes one environment of the run; its observations are those that `policy` takes.

        Raises:
          UserError: if it cannot be made.
        """
        return self.agent.maker.single()

    def action_values(self, observation: np.ndarray) -> np.ndarray:
        """Returns Q-values float32 [A], or [N, A] for N observations; -inf for actions that a mask does not allow.

        Where an action has several joints: [J, A] or [N, J, A], -inf for bins that a joint does not have.

        Args:
          observation: one of `environment()`, or several stacked along a first axis.
        """
        shape = self.agent.spaces.observation_shape
        stacked = np.asarray(observation, self.agent.spaces.observation_dtype)
        if stacked.shape[stacked.ndim - len(shape) :] != shape or stacked.ndim - len(shape) not in (0, 1):
            raise ValueError(f"observations of shape {shape} are taken, one or several, and not {stacked.shape}")
        values = self.agent.values(stacked.reshape(-1, *shape))
        return values if stacked.ndim > len(shape) else values[0]

    def policy(self, observation: np.ndarray) -> np.ndarray:
        """Returns the greedy action int64 [] or [J], or [N, ...] for N observations; see `action_values`."""
        return np.asarray(self.action_values(observation).argmax(axis=-1))

    @property
    def metrics(self) -> Any:
        """Returns the lines of metrics.jsonl: a pandas DataFrame where pandas is installed, otherwise a list of dicts.

        Raises:
          UserError: if the run has none here.
        """
        if is_url(self.place):
            raise UserError(f"{self.place}: metrics are read from a run directory")
        path = RunDirectory(Path(self.place)).metrics
        try:
            records = [json.loads(line) for line in path.read_text().splitlines()]
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error})") from None
        try:
            import pandas as pd
        except ImportError:
            return records
        return pd.DataFrame(records)


def load(place: str | Path, checkpoint: str | int = "best") -> Run:
    """Loads a trained agent.

    Args:
      place: a run directory, a checkpoint path, or the folder of one checkpoint.
      checkpoint: best (with the highest score), last, or the env steps of one; not used for the folder of one.

    Raises:
      UserError: if there is no such run or checkpoint, or its environment cannot be made.
    """
    run, which = place_and_checkpoint(
        str(Path(place).expanduser() if not is_url(str(place)) else place), str(checkpoint)
    )
    config = parse(["--resume", run], lambda run: read_config_of(run, ""), quiet=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    alone = start(Launch(), usable_cores(), config.runtime.device, timeline=False)
    from hvd_dqn.training.trained import load_trained  # TensorFlow: after its settings

    return Run(run, load_trained(run, config, which, alone.communicator))
