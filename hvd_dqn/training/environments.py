"""Finds the environment, and starts this rank's ones: with the open episodes that were saved, or with new ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hvd_dqn.checkpoint.keepalive import with_keepalive
from hvd_dqn.config import Config
from hvd_dqn.distributed.agreement import raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.watchdog import watchdog_of
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.open_episode import CollectorState, OpenEpisode
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.shares import first_index
from hvd_dqn.training.job import Job
from hvd_dqn.validation import environment_arguments


def find_environment(
    config: Config, communicator: Communicator, limit_seconds: float
) -> tuple[EnvironmentMaker, Spaces]:
    """Finds the environment, and in a first one its spaces and action masks.

    Args:
      config: the configuration.
      communicator: the job's.
      limit_seconds: after which a constructor, or the first reset, that does not return ends the job, as all ranks
        wait for it; 0 for none.

    Raises:
      UserError: if there is no such environment, or it cannot be used.
    """

    @contextlib.contextmanager
    def watched() -> Iterator[None]:
        watchdog = watchdog_of(communicator, limit_seconds, maker.calls)
        watchdog.start()
        try:
            yield
        finally:
            watchdog.stop()

    environment = config.environment
    maker = EnvironmentMaker(
        environment.env,
        environment_arguments(config),
        environment.vectorization,
        environment.protocol,
        environment.action_bins,
        watched=watched,
    )
    maker.find_masks()
    return maker, maker.spaces().stacking(config.replay.stacked_frames)


def start_environments(job: Job, saved: Mapping[int, OpenEpisode] | None = None, generator: Any = None) -> None:
    """Continues saved episodes and begins new ones in all other environments; a collective.

    Args:
      job: the job, its counters restored.
      saved: open episodes by global environment, equal on all ranks; empty if they could not be saved, None if they
        were not to be.
      generator: state of the generator of this rank's native vector environment; None seeds it.

    Raises:
      UserError: on all ranks, if an environment is not deterministic.
    """
    if not saved:
        raise_on_any_rank(job.communicator, lambda: restart_environments(job))  # COLLECTIVE
        continued = 0
    else:
        longest = max(episode.length for episode in saved.values())
        look = with_keepalive(
            job.communicator,
            job.watchdog,
            f"continuing open episodes of up to {longest:,} steps",
            lambda: job.acting.collector.restore(
                [saved.get(env) for env in own_environments(job)], generator, job.counters.env_steps
            ),
        )  # COLLECTIVE
        continued = raise_on_any_rank(job.communicator, look)  # COLLECTIVE
    job.stop.keep_handlers()
    if saved is not None:
        _report(job, continued)  # COLLECTIVE


def restart_environments(job: Job) -> None:
    """Ends all open episodes and begins new ones; a job that is resumed from here does the same."""
    job.acting.collector.reset(job.counters.env_steps)


def keeps_episodes(job: Job) -> bool:
    """Returns whether open episodes continue after a checkpoint, here and in a resumed job."""
    return job.config.job.checkpoint_boundary == "keep"


def open_episodes(job: Job) -> CollectorState | None:
    """Returns this rank's open episodes as a checkpoint keeps them; None if none is to survive it. A collective.

    Raises:
      UserError: on all ranks, if an environment cannot give its state.
    """
    if not keeps_episodes(job):
        return None
    state: CollectorState = raise_on_any_rank(job.communicator, job.acting.collector.state)  # COLLECTIVE
    return state


def own_environments(job: Job) -> range:
    """Returns the global indices of this rank's environments."""
    communicator = job.communicator
    first = first_index(job.config.environment.num_envs, communicator.rank, communicator.size)
    return range(first, first + job.acting.collector.num_envs)


def _report(job: Job, continued: int) -> None:
    """Reports how many of the ranks' episodes continue, unless all do; a collective."""
    total = int(job.communicator.sum(np.array([float(continued)]))[0])  # COLLECTIVE
    num_envs = job.config.environment.num_envs
    if total < num_envs:
        job.records.display.message(
            f"open episodes: {total} of {num_envs} environments continue theirs, the others begin new ones"
        )
