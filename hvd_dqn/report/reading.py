"""Reads a run: its configuration, its metrics, its checkpoints and its videos, also while it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.checkpoint.contents import read_manifest
from hvd_dqn.checkpoint.files import read_bytes
from hvd_dqn.checkpoint.listing import find_checkpoints
from hvd_dqn.checkpoint.storage import Location, open_location
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.files import METRICS_BYTES, parse_json
from hvd_dqn.locations import is_url
from hvd_dqn.run.config_file import CONFIG_FILE, read_record
from hvd_dqn.run.directory import METRICS_FILE, RunDirectory
from hvd_dqn.run.lock import is_locked

WALL_SECONDS = "wall_seconds"
"""Field that is added to each record: seconds of training so far, those of earlier jobs of a resumed run included."""
_FILMS = (".mp4", ".webm", ".gif")

Record = dict[str, Any]


@dataclass(frozen=True)
class RunData:
    """What one run has written so far."""

    place: str
    """As given: a run directory or a checkpoint path."""
    name: str
    config: dict[str, Any]
    """The flat configuration; fields that an older version did not have are the defaults."""
    about: dict[str, Any]
    """The rest of config.json: ranks, command, versions, machine, git_revision."""
    training: list[Record]
    """Records of metrics.jsonl by kind, in the order of the file."""
    evaluations: list[Record]
    final: Record | None
    """The final evaluation, unless the run was resumed after it."""
    state: str
    """finished, running (here), or unfinished: stopped, or running on another machine."""
    checkpoints: dict[int, float | None]
    """Score by env steps."""
    film: Path | None
    """The newest video."""

    @property
    def seed(self) -> int:
        """Returns the run's seed."""
        return int(self.config["seed"])

    @property
    def ranks(self) -> int:
        """Returns the number of ranks of its latest job."""
        return int(self.about.get("ranks", 1))

    @property
    def last(self) -> Record | None:
        """Returns the last periodic evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def best(self) -> Record | None:
        """Returns the periodic evaluation with the highest mean return; the newest of equals, as for checkpoints."""
        scored = [record for record in self.evaluations if record.get("mean_return") is not None]
        return max(reversed(scored), key=lambda record: float(record["mean_return"]), default=None)

    @property
    def latest(self) -> Record | None:
        """Returns the latest record of training or evaluation."""
        records = [records[-1] for records in (self.training, self.evaluations) if records]
        return max(records, key=lambda record: float(record["env_steps"]), default=None)

    def column(self, name: str, kind: str = "training") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns env steps, wall seconds and a field of the records that have it, float64 [N] each."""
        records = self.training if kind == "training" else self.evaluations
        rows = [(r["env_steps"], r[WALL_SECONDS], r[name]) for r in records if r.get(name) is not None]
        env_steps, seconds, values = np.array(rows, np.float64).reshape(-1, 3).T
        return env_steps, seconds, values


def read_run(place: str, defaults: Mapping[str, Any]) -> RunData:
    """Reads a run.

    Args:
      place: its run directory or checkpoint path.
      defaults: the flat configuration of a run without flags.

    Raises:
      UserError: if there is no such run, or a file of it cannot be read.
    """
    home: Location = open_location(place, "run") if is_url(place) else RunDirectory.open(place, "").path
    about = read_record(home / CONFIG_FILE)
    config = dict(defaults) | about.pop("config")
    records = read_records(home)
    finished = bool(records) and records[-1]["kind"] == "final_evaluation"
    running = isinstance(home, Path) and is_locked(home)
    return RunData(
        place,
        str(config["name"]) or home.name,
        config,
        about,
        [record for record in records if record["kind"] == "training"],
        [record for record in records if record["kind"] == "evaluation"],
        records[-1] if finished else None,
        "running" if running else "finished" if finished else "unfinished",
        _checkpoints(home, config),
        _newest_film(home),
    )


def read_records(home: Location) -> list[Record]:
    """Returns the records of metrics.jsonl, with `WALL_SECONDS`; lines that are none, such as a cut one, are left out.

    Args:
      home: the folder of the file; it may have none.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        lines = read_bytes(home / METRICS_FILE, METRICS_BYTES).splitlines()
    except FileNotFoundError:
        return []
    except CheckpointError as error:
        raise UserError(f"{home / METRICS_FILE} cannot be read: {error}") from None
    records, before, latest = [], 0.0, 0.0
    for line in lines:
        record = _record(line)
        if record is not None:
            if record["seconds"] < latest:  # a resumed run counts from 0
                before += latest
            latest = record["seconds"]
            records.append(record | {WALL_SECONDS: before + latest})
    return records


def _record(line: bytes) -> Record | None:
    """Returns a line as a record, None if it is none."""
    try:
        record = parse_json(line)
        sound = isinstance(record["kind"], str) and all(
            math.isfinite(float(record[name])) for name in ("env_steps", "seconds", "unix_time")
        )
    except (ValueError, KeyError, TypeError):
        return None
    return record if sound else None


def _checkpoints(home: Location, config: Mapping[str, Any]) -> dict[int, float | None]:
    """Returns the scores of the readable checkpoints of a place by their env steps; no other store is asked."""
    if isinstance(home, Path) and config["checkpoint_path"]:
        return {}
    folder = home / "checkpoints" if isinstance(home, Path) else home
    scores = {}
    for name in find_checkpoints(folder)[0]:
        try:
            manifest = read_manifest(folder / name)
        except CheckpointError:  # removed meanwhile, or damaged; evaluate and resume report it
            continue
        scores[int(manifest["env_steps"])] = manifest["score"]
    return scores


def _newest_film(home: Location) -> Path | None:
    if not isinstance(home, Path):
        return None
    films = [path for path in home.glob("videos/*") if path.suffix in _FILMS and path.is_file()]
    return max(films, key=lambda path: path.stat().st_mtime, default=None)
