"""Replay segments: one rank's transitions in immutable compressed files, named by their content.

A checkpoint lists the segments that hold its replay, so it writes only the transitions added since the previous one.

    checkpoints/replay/rank-00000-of-00004/000000004096-1f3a….zst      number of the first transition, SHA-256

A segment is a zstd-compressed safetensors file with the columns of a Transition. Where observations stack frames, it
holds each frame once, and s_tm1 and s_t are numbers of frames. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import safetensors.numpy
import zstandard

from hvd_dqn.checkpoint.files import list_files, read_verified, remove, sha256, write_bytes
from hvd_dqn.checkpoint.storage import Location, ObjectPath
from hvd_dqn.counters import LARGEST
from hvd_dqn.errors import CheckpointError
from hvd_dqn.replay.rows import Rows
from hvd_dqn.transition import Transition

FOLDER = "replay"
Shapes = dict[str, tuple[tuple[int, ...], np.dtype]]
"""Of the columns of a file, with their dtypes."""
_NAME = re.compile(r"rank-\d{5}-of-\d{5}/\d{12}-[0-9a-f]{64}\.zst")
_LITTER = re.compile(r"rank-\d{5}-of-\d{5}/(\..*\.tmp|[^/]*\.zst)")
PIECE_BYTES = 2**27
"""The most bytes of transitions in a segment, observations whole: what is packed and unpacked at a time."""
MOST_BYTES = 2**36
"""The most bytes of a segment's file."""
_LEVEL = 1
"""The zstd level. Higher levels take more time from training and hardly compress transitions further."""


@dataclass(frozen=True)
class Segment:
    """The file of a consecutive run of one rank's transitions."""

    file: str  # relative to the replay folder
    first: int  # number of the first transition, counted from the start of the rank's replay
    count: int
    bytes: int
    sha256: str

    @property
    def facts(self) -> dict[str, Any]:
        """Returns the size and checksum that `read_verified` expects."""
        return {"bytes": self.bytes, "sha256": self.sha256}

    @classmethod
    def from_json(cls, record: Any) -> Segment:
        """Parses the result of `to_json`.

        Raises:
          CheckpointError: if the record is malformed.
        """
        try:
            segment = cls(**record)
            sound = (
                _NAME.fullmatch(segment.file) is not None
                and all(type(n) is int and 0 <= n <= LARGEST for n in (segment.first, segment.count, segment.bytes))
                and segment.file.endswith(f"{segment.sha256}.zst")
            )
        except TypeError:
            sound = False
        if not sound:
            raise CheckpointError(f"{str(record)[:200]} does not describe a segment")
        return segment

    def to_json(self) -> dict[str, Any]:
        """Returns the segment as JSON-ready values."""
        return asdict(self)


class SegmentWriter:
    """Writes one rank's segments, and tracks the ones that hold its current replay."""

    def __init__(self, folder: Location, rank: int, ranks: int) -> None:
        """Opens the rank's subfolder of the replay folder, which is created with the first segment."""
        self._folder = folder
        self._own = f"rank-{rank:05d}-of-{ranks:05d}"
        self._segments: list[Segment] = []

    @property
    def written(self) -> int:
        """Returns the number of the first transition that is not in a segment yet."""
        return self._segments[-1].first + self._segments[-1].count if self._segments else 0

    def adopt(self, segments: list[Segment]) -> None:
        """Continues after the segments of a loaded checkpoint."""
        self._segments = list(segments)

    def forget_missing(self) -> bool:
        """Forgets all segments if a local one is gone, so that the next checkpoint writes the whole replay.

        Returns:
          Whether one is gone.
        """
        gone = not isinstance(self._folder, ObjectPath) and not all(map(self._is_there, self._segments))
        if gone:
            self._segments = []
        return gone

    def _is_there(self, segment: Segment) -> bool:
        with contextlib.suppress(OSError):
            return os.path.getsize(f"{self._folder}/{segment.file}") == segment.bytes
        return False

    def write(self, rows: Rows, first: int, oldest: int) -> list[Segment]:
        """Writes the transitions added since the last segment.

        Args:
          rows: the transitions [N]; N may be 0.
          first: number of the first transition.
          oldest: number of the oldest transition in the replay.

        Returns:
          The segments that hold the replay, oldest first.

        Raises:
          OSError: if the segment cannot be written.
        """
        at_most = max(1, PIECE_BYTES // rows.row_bytes)
        for start in range(0, len(rows), at_most):
            self._write_one(rows.part(slice(start, start + at_most)), first + start)
        self._segments = [segment for segment in self._segments if segment.first + segment.count > oldest]
        return list(self._segments)

    def _write_one(self, rows: Rows, first: int) -> None:
        content = encode(rows)
        digest = sha256(content)
        name = f"{self._own}/{first:012d}-{digest}.zst"
        try:
            write_bytes(self._folder / name, content)
        except IsADirectoryError:
            remove(self._folder / name)
            write_bytes(self._folder / name, content)
        self._segments.append(Segment(name, first, len(rows), len(content), digest))


def encode(rows: Rows) -> bytes:
    """Serialises rows [N]."""
    columns = rows.columns._asdict() | ({} if rows.frames is None else {_FRAMES: rows.frames})
    contiguous = {name: np.ascontiguousarray(column) for name, column in columns.items()}
    return zstandard.ZstdCompressor(level=_LEVEL).compress(safetensors.numpy.save(contiguous))


def decode(content: bytes, like: Transition, count: int) -> Rows:
    """Parses the result of `encode`. Uses no more memory than the expected transitions need, whatever the bytes are.

    Args:
      content: the bytes.
      like: columns of any length, with the expected row shapes and dtypes of whole observations.
      count: N.

    Raises:
      CheckpointError: if the bytes are not N such transitions.
    """
    expected = {name: ((count, *column.shape[1:]), column.dtype) for name, column in like._asdict().items()}
    numbers = 2 * _NUMBER.itemsize * count * max(1, *like.s_tm1.shape[-1:])  # a stack of one frame per channel
    most = sum(math.prod(shape) * dtype.itemsize for shape, dtype in expected.values()) + numbers + _HEADER_BYTES
    try:
        if not 0 <= zstandard.frame_content_size(content) <= most:
            raise CheckpointError("it is larger than expected")
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
    frames = columns.pop(_FRAMES, None)
    if frames is not None and like.s_tm1.ndim > 1:
        expected |= _expected_with_frames(found, like, count)
    if found != expected:
        raise CheckpointError(f"it holds {_described(found)} instead of {_described(expected)}")
    rows = Rows(Transition(**columns), frames)
    if frames is not None and not all(
        _are_numbers(column, len(frames)) for column in (rows.columns.s_tm1, rows.columns.s_t)
    ):
        raise CheckpointError("its transitions name frames that it does not hold")
    return rows


def read(folder: Location, segment: Segment, like: Transition) -> Rows:
    """Reads a segment, see `decode`.

    Raises:
      CheckpointError: if it is missing or damaged; names it and its rank.
      StoreError: if it cannot be read.
    """
    path = folder / segment.file
    try:
        return decode(read_verified(path, segment.facts, MOST_BYTES), like, segment.count)
    except CheckpointError as error:
        named = str(error) if path.name in str(error) else f"{path.name}: {error}"
        raise CheckpointError(f"{segment.file.partition('/')[0]}: {named}") from None


def remove_unnamed(folder: Location, named: set[str]) -> None:
    """Removes segments that no checkpoint names, temporary files, and empty folders.

    Called while no rank writes, so a temporary file was left by a killed process.
    """
    found = {"/".join(name.split("/")[:2]) for name in list_files(folder)}
    for name in filter(_LITTER.fullmatch, found - named):
        remove(folder / name)
    for name in list_files(folder):
        if name.endswith("/"):  # empty now
            remove(folder / name)


_HEADER_BYTES = 4096
"""An upper bound on the safetensors header of a Transition."""
_FRAMES = "frames"
_NUMBER = np.dtype(np.int32)


def _expected_with_frames(found: Shapes, like: Transition, count: int) -> Shapes:
    """Returns the shapes and dtypes of a segment's observations and frames; C is that of s_tm1 [N, C]."""
    *sides, channels = like.s_tm1.shape[1:]
    stacked = found.get("s_tm1", ((), _NUMBER))[0][-1:] or (1,)
    stacked_frames = stacked[0] if stacked[0] and channels % stacked[0] == 0 else 1
    numbers = (count, stacked_frames), _NUMBER
    frames = (*found[_FRAMES][0][:1], *sides, channels // stacked_frames), like.s_tm1.dtype
    return {"s_tm1": numbers, "s_t": numbers, _FRAMES: frames}


def _are_numbers(numbers: np.ndarray, frames: int) -> bool:
    return bool(((numbers >= 0) & (numbers < frames)).all())


def _described(columns: Shapes) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in columns.items())
