"""Experiment trackers: rank 0 sends its records to W&B or MLflow while it trains; none of their failures ends a run."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.files import CONFIG_BYTES, parse_json, read_file, write_file
from hvd_dqn.run.directory import TRACKED_FILE

PROJECT = "hvd_dqn"
"""The W&B project, or the MLflow experiment, unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME names another."""
_WAITING_RECORDS = 10_000
_FINISH_SECONDS = 30.0


class Tracker(Protocol):
    """One run at a tracker. All methods are called by one thread, which is not the main one."""

    def start(self, name: str, config: Mapping[str, Any], known: str | None) -> str:
        """Starts a run, or continues the one with a known id.

        Args:
          name: of the run.
          config: flat configuration.
          known: the id of the run if it was tracked before.

        Returns:
          The run's id.
        """

    def log(self, env_steps: int, scalars: Mapping[str, float]) -> None:
        """Logs scalars by their names in TensorBoard."""

    def finish(self) -> None:
        """Sends what is left and ends the run."""


class WandbTracker:
    """A run of Weights & Biases. WANDB_MODE, WANDB_PROJECT and WANDB_ENTITY apply."""

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        """Takes the folder of W&B's own files, and what prints a line."""
        self._folder, self._note = folder, note

    def start(self, name: str, config: Mapping[str, Any], known: str | None) -> str:
        """Starts the run; offline without an API key, since there may be no terminal to ask for one."""
        wandb: Any = importlib.import_module("wandb")
        offline = "WANDB_MODE" not in os.environ and not wandb.api.api_key
        if offline:
            self._note(
                f"--track wandb: no API key, so W&B records offline: wandb sync {self._folder}/wandb/offline-run-*"
            )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            id=known,
            resume="allow",
            config=dict(config),
            dir=str(self._folder),
            mode="offline" if offline else None,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="env_steps")
        return str(self._run.id)

    def log(self, env_steps: int, scalars: Mapping[str, float]) -> None:
        """Logs with env_steps as a value: a resumed run may repeat steps, which W&B's own step must not."""
        self._run.log({**scalars, "env_steps": env_steps})

    def finish(self) -> None:
        """Sends what is left."""
        self._run.finish()


class MlflowTracker:
    """A run of MLflow. MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME apply."""

    def start(self, name: str, config: Mapping[str, Any], known: str | None) -> str:
        """Starts the run, with the configuration as its parameters."""
        self._entities: Any = importlib.import_module("mlflow.entities")
        self._client: Any = importlib.import_module("mlflow.tracking").MlflowClient()
        if known is not None:
            self._run = known
            self._client.update_run(known, status="RUNNING")
            return known
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        place = found.experiment_id if found is not None else self._client.create_experiment(experiment)
        self._run = str(self._client.create_run(place, run_name=name).info.run_id)
        parameters = [self._entities.Param(field, str(value)) for field, value in config.items()]
        self._client.log_batch(self._run, params=parameters)
        return self._run

    def log(self, env_steps: int, scalars: Mapping[str, float]) -> None:
        """Logs scalars in one request."""
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, env_steps) for name, value in scalars.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._run)


def check_packages(names: Sequence[str]) -> None:
    """Checks that the packages of trackers are installed.

    Raises:
      UserError: if one is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f'--track {name}: the package {name} is not installed: make setup EXTRAS="{name}", or '
                f'pip install "hvd-dqn[{name}]"'
            )


class Tracking:
    """Sends records to a tracker, by a thread: training never waits for a server."""

    def __init__(
        self, tracker: Tracker, kind: str, directory: Path, config: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        """Starts the thread.

        Args:
          tracker: where records are sent.
          kind: its name: wandb or mlflow.
          directory: the run directory, which keeps the id of the tracked run.
          config: the flat configuration.
          warn: prints a warning.
        """
        self._tracker, self._kind, self._directory, self._warn = tracker, kind, directory, warn
        self._waiting: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue(_WAITING_RECORDS)
        self._failed = False
        self._thread = threading.Thread(target=self._send, args=(config,), name=f"track-{kind}", daemon=True)
        self._thread.start()

    def take(self, record: dict[str, Any]) -> None:
        """Hands the numbers of a record to the thread."""
        if not self._failed:
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait((record["env_steps"], scalars_of(record)))

    def close(self) -> None:
        """Gives the tracker a limited time for what it has not sent."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(_FINISH_SECONDS)
        if self._thread.is_alive() and not self._failed:
            self._warn(f"--track {self._kind} has not received everything within {_FINISH_SECONDS:g} s")

    def _send(self, config: Mapping[str, Any]) -> None:
        try:
            known = tracked_ids(self._directory)
            own = self._tracker.start(self._directory.name, config, known.get(self._kind))
            if known.get(self._kind) != own:
                write_file(self._directory / TRACKED_FILE, json.dumps(known | {self._kind: own}).encode())
            while (item := self._waiting.get()) is not None:
                self._tracker.log(*item)
            self._tracker.finish()
        except Exception as error:  # of a foreign library or its server
            self._failed = True
            self._warn(f"--track {self._kind}: {' '.join(str(error).split())[:300]}; training continues without it")


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the finite numbers of a record by their names in TensorBoard: <kind>/<field>."""
    return {
        f"{record['kind']}/{name}": float(value)
        for name, value in record.items()
        if isinstance(value, (int, float))
        and not isinstance(value, bool)
        and name != "env_steps"
        and math.isfinite(value)
    }


def tracked_ids(directory: Path) -> dict[str, str]:
    """Returns the ids of a run at its trackers, {} without a readable file."""
    try:
        found = parse_json(read_file(directory / TRACKED_FILE, CONFIG_BYTES))
    except (OSError, CheckpointError, ValueError, UserError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
