"""Metrics on disk: one JSON line and one set of TensorBoard scalars per log period.

The fields are listed in docs/reference/metrics.md.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.files import METRICS_BYTES, open_regular, parse_json, read_file, write_file
from hvd_dqn.run.hyper_parameters import summary_of


class MetricsWriter(Protocol):
    """Writes metrics, one record at a time."""

    def write(self, record: dict[str, Any]) -> None:
        """Writes a record. Its "env_steps" is the step in TensorBoard."""

    def write_gif(self, tag: str, env_steps: int, gif: bytes) -> None:
        """Shows an animated GIF in TensorBoard."""

    def cut_after(self, env_steps: int, saved: bytes | None = None) -> None:
        """Removes records beyond a step, since a resumed run repeats those steps.

        Args:
          env_steps: the step.
          saved: lines that replace the existing ones.
        """

    def holds(self, kind: str, env_steps: int) -> bool:
        """Returns True if there is a record of this kind at this step."""

    def make_whole(self) -> bool:
        """Writes all records again if their files were removed; returns whether they were."""

    def close(self) -> None:
        """Flushes and closes."""


class NullMetrics:
    """The null object of all ranks except 0."""

    def write(self, record: dict[str, Any]) -> None:
        """Does nothing."""

    def write_gif(self, tag: str, env_steps: int, gif: bytes) -> None:
        """Does nothing."""

    def cut_after(self, env_steps: int, saved: bytes | None = None) -> None:
        """Does nothing."""

    def holds(self, kind: str, env_steps: int) -> bool:
        """Returns False."""
        return False

    def make_whole(self) -> bool:
        """Returns False."""
        return False

    def close(self) -> None:
        """Does nothing."""


class _WholeRecords:
    """A file to which each record is appended whole or not at all, so that a full disk leaves it readable."""

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
          OSError: if it cannot be written.
        """
        self._file = os.fdopen(open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "ab", buffering=0)

    def write(self, record: bytes) -> None:
        """Appends a record.

        Raises:
          OSError: if it does not fit.
        """
        end = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise

    def fileno(self) -> int:
        """Returns the file's descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Closes the file; some file systems report only now that they lost what was written."""
        with contextlib.suppress(OSError):
            self._file.close()


class _Events:
    """A TensorBoard event file, written at once: TensorBoard's own writer has a thread that ends at a full disk."""

    def __init__(self, folder: Path, hyper_parameters: Mapping[str, Any]) -> None:
        """Creates the file, which begins with the hyper-parameters.

        Raises:
          OSError: if it cannot be written.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        place = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{len(list(folder.iterdir()))}"
        self._file = _WholeRecords(folder / f"events.out.tfevents.{place}")
        self._records = RecordWriter(self._file)
        now = time.time()
        self.add(Event(wall_time=now, file_version="brain.Event:2"))
        self.add(Event(wall_time=now, summary=summary_of(hyper_parameters, now)))

    def add(self, event: Any) -> None:
        """Appends an event.

        Raises:
          OSError: if it does not fit.
        """
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class DiskMetrics:
    """Appends to metrics.jsonl and to a TensorBoard event file."""

    def __init__(self, jsonl: Path, tensorboard: Path, hyper_parameters: Mapping[str, Any]) -> None:
        """Opens both for appending.

        Args:
          jsonl: path of metrics.jsonl.
          tensorboard: folder of the event files.
          hyper_parameters: of the run, by the names of the configuration's fields, for TensorBoard.

        Raises:
          OSError: if they cannot be written.
        """
        self._path, self._tensorboard, self._hyper_parameters = jsonl, tensorboard, hyper_parameters
        self._open()

    def _open(self) -> None:
        self._jsonl = _WholeRecords(self._path)
        self._events = _Events(self._tensorboard, self._hyper_parameters)

    def write(self, record: dict[str, Any]) -> None:
        """Writes a record. A value that is None or not finite becomes null in JSON and is not sent to TensorBoard.

        Raises:
          OSError: if one of the files cannot be written; the other one has the record.
        """
        clean = {name: _finite_or_none(value) for name, value in record.items()}
        try:
            self._jsonl.write(json.dumps(clean).encode() + b"\n")
        finally:
            self._events.add(_scalar_event(clean))

    def write_gif(self, tag: str, env_steps: int, gif: bytes) -> None:
        """Adds an image, which TensorBoard plays; it is not among the lines of metrics.jsonl.

        Raises:
          OSError: if it cannot be written.
        """
        self._events.add(_gif_event(tag, env_steps, gif))

    def cut_after(self, env_steps: int, saved: bytes | None = None) -> None:
        """Removes later lines of metrics.jsonl and makes TensorBoard hide later points.

        Saved lines replace those of metrics.jsonl. If it was empty, they are also written to TensorBoard.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        present = self._read()
        lines = (present if saved is None else saved).splitlines()
        retained = [line + b"\n" for line in lines if _env_steps(line) <= env_steps]
        self._jsonl.close()
        write_file(self._path, b"".join(retained))
        self._jsonl = _WholeRecords(self._path)
        if not present:
            self._add_events(retained)
        self._events.add(Event(step=env_steps + 1, session_log=SessionLog(status=SessionLog.START)))

    def holds(self, kind: str, env_steps: int) -> bool:
        """Searches metrics.jsonl."""
        lines = self._read().splitlines()
        return any(_env_steps(line) == env_steps and parse_json(line).get("kind") == kind for line in lines)

    def make_whole(self) -> bool:
        """Opens new files if the present ones were removed, and writes into them what those had."""
        number = self._jsonl.fileno()
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(number), os.stat(self._path)) and self._tensorboard.is_dir():
                return False
        content = os.pread(number, os.fstat(number).st_size, 0)
        self.close()
        write_file(self._path, content)
        self._open()
        self._add_events(content.splitlines())
        return True

    def _add_events(self, lines: list[bytes]) -> None:
        for line in lines:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # not a record of this program
                self._events.add(_scalar_event(parse_json(line)))

    def close(self) -> None:
        """Closes both files."""
        self._jsonl.close()
        self._events.close()

    def _read(self) -> bytes:
        try:
            return read_file(self._path, METRICS_BYTES)
        except CheckpointError as error:
            raise UserError(f"{self._path} cannot be continued: {error}: move it away") from None


def _env_steps(line: bytes) -> float:
    """Returns a line's env step, or infinity for a line that a crash left incomplete."""
    try:
        return float(parse_json(line)["env_steps"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return math.inf


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _gif_event(tag: str, env_steps: int, gif: bytes) -> Any:
    """Builds the TensorBoard event of a GIF; its width and height are in its header."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = struct.unpack("<HH", gif[6:10])
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
    return Event(step=env_steps, wall_time=time.time(), summary=Summary(value=[Summary.Value(tag=tag, image=image)]))


def _scalar_event(record: dict[str, Any]) -> Any:
    """Builds the TensorBoard event of one record."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=f"{record['kind']}/{name}", simple_value=float(value))
        for name, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "env_steps"
    ]
    return Event(step=record["env_steps"], wall_time=record["unix_time"], summary=Summary(value=values))
