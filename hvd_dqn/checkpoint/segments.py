"""One rank's stored transitions on disk: immutable compressed segments, each written once and named by its content.

A checkpoint names the segments that hold its replay, so a new one writes only what is new since the last.

    checkpoints/replay/rank-00000-of-00004/000000004096-1f3a….zst      first transition's number, SHA-256

A segment is a zstd-compressed safetensors file with the columns of a Transition: nothing is unpickled.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import safetensors.numpy
import zstandard

from hvd_dqn.checkpoint.files import read_verified, sha256, write_bytes_atomically
from hvd_dqn.checkpoint.storage import Location
from hvd_dqn.errors import CheckpointError
from hvd_dqn.transition import Transition

FOLDER = "replay"
_NAME = re.compile(r"rank-\d{5}-of-\d{5}/\d{12}-[0-9a-f]{64}\.zst")
_LEVEL = 1
"""Of zstd: transitions compress little more at higher ones, which take longer from training's core."""


@dataclass(frozen=True)
class Segment:
    """Where a run of one rank's transitions lies."""

    file: str  # below the replay folder
    first: int  # number of the first transition since the rank's replay began
    count: int
    bytes: int
    sha256: str

    @property
    def facts(self) -> dict[str, Any]:
        """Returns what `read_verified` compares the file with."""
        return {"bytes": self.bytes, "sha256": self.sha256}

    @classmethod
    def from_json(cls, record: Any) -> Segment:
        """Reads what `to_json` gave.

        Raises:
          CheckpointError: if it is nothing of the kind.
        """
        try:
            segment = cls(**record)
            sound = (
                _NAME.fullmatch(segment.file) is not None
                and all(type(n) is int and n >= 0 for n in (segment.first, segment.count, segment.bytes))
                and segment.file.endswith(f"{segment.sha256}.zst")
            )
        except TypeError:
            sound = False
        if not sound:
            raise CheckpointError(f"{str(record)[:200]} describes no segment")
        return segment

    def to_json(self) -> dict[str, Any]:
        """Returns the segment as JSON-ready values."""
        return asdict(self)


class SegmentWriter:
    """Writes one rank's segments and knows which of them hold its present replay."""

    def __init__(self, folder: Location, rank: int, ranks: int) -> None:
        """Uses a folder of its own below the replay folder; it is made with the first segment."""
        self._folder = folder
        self._own = f"rank-{rank:05d}-of-{ranks:05d}"
        self._segments: list[Segment] = []

    @property
    def written(self) -> int:
        """Returns the number of the first transition that is in no segment yet."""
        return self._segments[-1].first + self._segments[-1].count if self._segments else 0

    def adopt(self, segments: list[Segment]) -> None:
        """Goes on after these segments, of a checkpoint that was loaded."""
        self._segments = list(segments)

    def write(self, transitions: Transition, first: int, oldest: int) -> list[Segment]:
        """Writes the transitions since the last segment.

        Args:
          transitions: columns [N], N may be 0.
          first: number of the first of them.
          oldest: number of the oldest transition that the replay still holds.

        Returns:
          The segments that hold the replay, oldest first.

        Raises:
          OSError: if it cannot be written.
        """
        count = len(transitions.a_tm1)
        if count:
            content = encode(transitions)
            digest = sha256(content)
            name = f"{self._own}/{first:012d}-{digest}.zst"
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(path, content)
            self._segments.append(Segment(name, first, count, len(content), digest))
        self._segments = [segment for segment in self._segments if segment.first + segment.count > oldest]
        return list(self._segments)


def encode(transitions: Transition) -> bytes:
    """Packs the columns of a Transition [N]."""
    columns = {name: np.ascontiguousarray(column) for name, column in transitions._asdict().items()}
    return zstandard.ZstdCompressor(level=_LEVEL).compress(safetensors.numpy.save(columns))


def decode(content: bytes, like: Transition, count: int) -> Transition:
    """Unpacks what `encode` gave.

    Args:
      content: the bytes.
      like: columns of any length, whose row shapes and dtypes the result has.
      count: N.

    Raises:
      CheckpointError: if the bytes are no such transitions; never takes more memory than they would.
    """
    expected = {name: ((count, *column.shape[1:]), column.dtype) for name, column in like._asdict().items()}
    most = sum(math.prod(shape) * dtype.itemsize for shape, dtype in expected.values()) + _HEADER_BYTES
    try:
        if not 0 <= zstandard.frame_content_size(content) <= most:
            raise CheckpointError("it holds more than it should")
        columns = safetensors.numpy.load(zstandard.ZstdDecompressor().decompress(content, max_output_size=most))
    except (
        zstandard.ZstdError,
        safetensors.SafetensorError,
        ValueError,
        KeyError,
        MemoryError,
        OverflowError,
    ) as error:
        raise CheckpointError(f"it cannot be unpacked ({str(error)[:300]})") from None
    found = {name: (column.shape, column.dtype) for name, column in columns.items()}
    if found != expected:
        raise CheckpointError(f"it holds {_described(found)} instead of {_described(expected)}")
    return Transition(**columns)


def read(folder: Location, segments: list[Segment], like: Transition) -> Transition:
    """Reads segments and joins them, oldest first.

    Raises:
      CheckpointError: naming the first segment that is missing or damaged.
    """
    parts = [Transition(*(column[:0] for column in like))]
    for segment in segments:
        content = read_verified(folder / segment.file, segment.facts)
        try:
            parts.append(decode(content, like, segment.count))
        except CheckpointError as error:
            raise CheckpointError(f"{folder / segment.file}: {error}") from None
    return Transition(*map(np.concatenate, zip(*parts, strict=True)))


def remove_unnamed(folder: Location, named: set[str]) -> None:
    """Removes segments that no checkpoint names any more, and folders that have become empty.

    Called when no rank writes: a temporary file is that of a process that was killed.
    """
    for path in folder.glob("rank-*/.*.tmp"):
        path.unlink()
    for path in folder.glob("rank-*/*.zst"):
        if f"{path.parent.name}/{path.name}" not in named:
            path.unlink()
    for path in folder.glob("rank-*"):
        if not any(path.iterdir()):
            path.rmdir()


_HEADER_BYTES = 4096
"""More than safetensors' description of a Transition takes."""


def _described(columns: dict[str, tuple[tuple[int, ...], np.dtype]]) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in columns.items())
