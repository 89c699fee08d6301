"""hvd-dqn evaluate: plays episodes of a trained agent."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from hvd_dqn.cli.arguments import parse
from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.cli.ranks import refuse, run_to_exit
from hvd_dqn.config import Config, replace
from hvd_dqn.counters import LARGEST
from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import UserError
from hvd_dqn.locations import is_url
from hvd_dqn.run.directory import read_config_of
from hvd_dqn.run.stopping import StopRequest

PROGRAM = "hvd-dqn evaluate"
DESCRIPTION = """Plays greedy episodes of a trained agent and prints their returns.

  hvd-dqn evaluate runs/CartPole-v1/first                            its best checkpoint, 100 episodes
  hvd-dqn evaluate runs/CartPole-v1/first --checkpoint last --json   the newest one; one JSON object
  hvd-dqn evaluate runs/CartPole-v1/first/checkpoints/000000040000   this one
  horovodrun -np 4 hvd-dqn evaluate s3://bucket/run --episodes 1000  episodes split over four ranks

The result is the same at any number of ranks."""
_CHECKPOINT = re.compile(r"(?P<run>.*?)(/checkpoints)?/(?P<env_steps>\d{12,18})(-\d+)?/*")


@dataclass(frozen=True, kw_only=True)
class OfAgent:
    """What names a trained agent."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, checkpoint path (a URL), or one checkpoint's folder in either."""
    checkpoint: str = "best"
    """best: the one with the highest score. last: the newest. Or its env steps."""


@dataclass(frozen=True, kw_only=True)
class OfEpisodes(OfAgent):
    """How a trained agent plays."""

    seed: int = -1
    """Seed of the episodes. -1: the run's."""
    epsilon: float = -1.0
    """Probability of a random action. -1: the run's --evaluation-epsilon."""

    def config(self, run: str, device: str, *, quiet: bool) -> Config:
        """Returns the configuration of a run, with the seed and the epsilon that are asked for.

        Raises:
          UserError: if the run has no such file, or one of the two is no seed or no probability.
        """
        for flag, value, most, remedy in (
            ("--seed", self.seed, LARGEST, f"give an integer from 0 to {LARGEST}"),
            ("--epsilon", self.epsilon, 1.0, "give a number from 0 to 1"),
        ):
            if value != -1 and not 0 <= value <= most:
                raise UserError(f"{flag} is {value}: {remedy}")
        config = parse(["--resume", run, "--device", device], lambda run: read_config_of(run, ""), quiet=quiet)
        asked = {"seed": self.seed, "evaluation_epsilon": self.epsilon}
        return replace(config, {name: value for name, value in asked.items() if value != -1})


@dataclass(frozen=True, kw_only=True)
class Asked(OfEpisodes):
    """What is asked for."""

    episodes: int = 100
    """Episodes, over all ranks."""
    json: bool = False
    """Print one JSON object, with the return of each episode."""
    device: Literal["auto", "cpu", "visible-gpu"] = "auto"
    """As for training."""


def read(arguments: Sequence[str], *, quiet: bool = False) -> tuple[str, str, Config, int, bool]:
    """Returns the run, which of its checkpoints, its configuration, how many episodes, and whether to print JSON.

    Raises:
      UserError: if an argument is invalid, or there is no such run.
      SystemExit: with code 0 after --help.
    """
    asked = parse_dataclass(Asked, arguments, PROGRAM, DESCRIPTION, quiet=quiet)
    run, which = place_and_checkpoint(os.path.expanduser(asked.run), asked.checkpoint)
    if asked.episodes < 1:
        raise UserError(f"--episodes is {asked.episodes}: give at least 1")
    return run, which, asked.config(run, asked.device, quiet=quiet), asked.episodes, asked.json


def place_and_checkpoint(place: str, which: str) -> tuple[str, str]:
    """Returns the run that a place belongs to, and which checkpoint is meant: the place itself, if it is one.

    Args:
      place: a run directory, a checkpoint path, or a checkpoint's folder.
      which: as asked for, where the place is no checkpoint.
    """
    match = _CHECKPOINT.fullmatch(place if is_url(place) else os.path.abspath(place))
    return (place, which) if match is None else (match["run"], str(int(match["env_steps"])))


def main(arguments: Sequence[str]) -> int:
    """Evaluates on this rank and returns the exit code."""
    launch, stop = read_launch(), StopRequest()
    stop.install()
    try:
        run, which, config, episodes, as_json = read(arguments, quiet=launch.rank > 0)
    except UserError as error:
        return refuse(PROGRAM, error, launch, stop)
    own = config.runtime
    threads = prepare_environment(
        launch, own.threads_per_rank, own.stall_timeout_seconds, own.bind_to_cores
    )  # COLLECTIVE
    runtime = start(launch, threads, own.device, timeline=False)  # COLLECTIVE
    from hvd_dqn.training.evaluate import evaluate_run  # NumPy and TensorFlow: after the thread pools' sizes are set

    return run_to_exit(
        PROGRAM,
        runtime.communicator,
        lambda: evaluate_run(run, config, which, episodes, as_json=as_json, runtime=runtime, stop=stop),
    )  # COLLECTIVE
