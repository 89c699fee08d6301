"""Metrics on disk: one JSON line and one set of TensorBoard scalars per log period (schema: docs/metrics.md)."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any, Protocol

from hvd_dqn.checkpoint.files import write_bytes_atomically


class MetricsWriter(Protocol):
    """Takes one record of metrics at a time."""

    def write(self, record: dict[str, Any]) -> None:
        """Writes a record; its "env_steps" is the step of TensorBoard's axis."""

    def cut_after(self, env_steps: int, saved: bytes | None = None) -> None:
        """Forgets records beyond a step: a resumed run goes over that ground again.

        Args:
          env_steps: the step.
          saved: lines that count instead of those that are here.
        """

    def holds(self, kind: str, env_steps: int) -> bool:
        """Returns whether there is a record of this kind at this step."""

    def close(self) -> None:
        """Flushes and closes."""


class NullMetrics:
    """The writer of every rank but 0."""

    def write(self, record: dict[str, Any]) -> None:
        """Does nothing."""

    def cut_after(self, env_steps: int, saved: bytes | None = None) -> None:
        """Does nothing."""

    def holds(self, kind: str, env_steps: int) -> bool:
        """Holds nothing."""
        return False

    def close(self) -> None:
        """Does nothing."""


class DiskMetrics:
    """Appends to metrics.jsonl and to a TensorBoard event file."""

    def __init__(self, jsonl: Path, tensorboard: Path) -> None:
        """Opens both for appending.

        Raises:
          OSError: if they cannot be written.
        """
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._path = jsonl
        self._jsonl = jsonl.open("a", buffering=1)
        self._events = EventFileWriter(str(tensorboard))

    def write(self, record: dict[str, Any]) -> None:
        """Writes a record; a value that is None or not finite is null in JSON and left out of TensorBoard."""
        clean = {name: _finite_or_none(value) for name, value in record.items()}
        self._jsonl.write(json.dumps(clean) + "\n")
        self._events.add_event(_scalar_event(clean))

    def cut_after(self, env_steps: int, saved: bytes | None = None) -> None:
        """Drops later lines of metrics.jsonl and tells TensorBoard to hide later points.

        Saved lines take the place of those in metrics.jsonl; where that was empty, TensorBoard gets them, too.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        present = self._path.read_bytes()
        lines = (present if saved is None else saved).splitlines()
        kept = [line + b"\n" for line in lines if _env_steps(line) <= env_steps]
        self._jsonl.close()
        write_bytes_atomically(self._path, b"".join(kept))
        self._jsonl = self._path.open("a", buffering=1)
        for line in kept if not present else []:
            with contextlib.suppress(KeyError, TypeError):  # a line of somebody else's
                self._events.add_event(_scalar_event(json.loads(line)))
        self._events.add_event(Event(step=env_steps + 1, session_log=SessionLog(status=SessionLog.START)))

    def holds(self, kind: str, env_steps: int) -> bool:
        """Looks through metrics.jsonl."""
        lines = self._path.read_bytes().splitlines()
        return any(_env_steps(line) == env_steps and json.loads(line).get("kind") == kind for line in lines)

    def close(self) -> None:
        """Closes both files."""
        self._jsonl.close()
        self._events.close()


def _env_steps(line: bytes) -> float:
    """Returns a line's step; a line that a crash left half-written counts as beyond all steps."""
    try:
        return float(json.loads(line)["env_steps"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalar_event(record: dict[str, Any]) -> Any:
    """Builds TensorBoard's event of one record."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=f"{record['kind']}/{name}", simple_value=float(value))
        for name, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "env_steps"
    ]
    return Event(step=record["env_steps"], wall_time=record["unix_time"], summary=Summary(value=values))
