"""Opens what keeps a job's records: metrics, trackers and display on rank 0, traces on every rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from hvd_dqn.config import Config, flatten
from hvd_dqn.distributed.agreement import on_root
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.run.directory import RunDirectory
from hvd_dqn.run.metrics import DiskMetrics, MetricsWriter, NullMetrics
from hvd_dqn.run.profile import IterationProfile
from hvd_dqn.run.progress import Display, NullDisplay, make_display
from hvd_dqn.run.trackers import MlflowTracker, Tracker, Tracking, WandbTracker, check_packages
from hvd_dqn.training.recording import Recorder, make_recorder
from hvd_dqn.training.records import Records

TRACKERS = {"none": (), "wandb": ("wandb",), "mlflow": ("mlflow",), "both": ("wandb", "mlflow")}
"""The trackers of each value of --track."""


def open_records(
    config: Config, communicator: Communicator, directory: RunDirectory, profile: IterationProfile
) -> Records:
    """Opens rank 0's metrics and display, null objects elsewhere, and the traces of --profile; a collective.

    Raises:
      UserError: on all ranks, if a file cannot be written or a tracker's package is missing.
    """
    rank, trace = communicator.rank, None
    if config.runtime.profile:
        on_root(communicator, lambda: directory.profile.mkdir(exist_ok=True))  # COLLECTIVE
        communicator.start_timeline(directory.profile / "horovod.timeline.json")  # COLLECTIVE
        trace = directory.profile / f"rank-{rank:05d}.trace.json"
    opened: list[MetricsWriter] = []

    def open_metrics() -> None:
        check_packages(TRACKERS[config.job.track])
        values = hyper_parameters(config, communicator.size)
        opened.append(DiskMetrics(directory.metrics, directory.tensorboard, values))

    films: list[Recorder] = []
    on_root(communicator, open_metrics)  # COLLECTIVE
    on_root(communicator, lambda: films.append(make_recorder(config, directory.videos)))  # COLLECTIVE
    if rank > 0:
        return Records(rank, NullMetrics(), NullDisplay(), profile, trace)
    display = make_display(config.runtime.progress, config.job.total_env_steps)
    return Records(
        rank,
        opened[0],
        display,
        profile,
        trace,
        listeners=list(_trackings(config, directory, display)),
        under_launcher=communicator.size > 1,
        recorder=films[0],
    )


def hyper_parameters(config: Config, ranks: int) -> dict[str, Any]:
    """Returns what distinguishes runs: all fields but those of places, hosts and time, and the number of ranks."""
    of_hosts = {field.name for field in dataclasses.fields(config.runtime)}
    of_places = {field.name for field in dataclasses.fields(config.job)} - {"total_env_steps", "seed"}
    return {name: value for name, value in flatten(config).items() if name not in of_hosts | of_places} | {
        "ranks": ranks
    }


def _trackings(config: Config, directory: RunDirectory, display: Display) -> Iterator[Tracking]:
    """Starts the trackers of --track."""
    for kind in TRACKERS[config.job.track]:
        tracker: Tracker = WandbTracker(directory.path, display.message) if kind == "wandb" else MlflowTracker()
        yield Tracking(tracker, kind, directory.path, flatten(config), display.warn)
