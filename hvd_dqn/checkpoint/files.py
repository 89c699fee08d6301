"""Files of checkpoints, on a local file system or in an object store: read, write, list, remove."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hvd_dqn import files
from hvd_dqn.checkpoint.storage import Location, ObjectPath
from hvd_dqn.errors import CheckpointError


def read_bytes(path: Location, most: int) -> bytes:
    """Returns a file's content of at most `most` bytes.

    Raises:
      FileNotFoundError: if it is absent.
      CheckpointError: if it is no regular file, or too large.
      StoreError: if it cannot be read.
    """
    return path.read(most) if isinstance(path, ObjectPath) else files.read_file(path, most)


def write_bytes(path: Location, content: bytes) -> None:
    """Writes a file atomically and durably, with its folder.

    Raises:
      OSError, StoreError: if it cannot be written.
    """
    path.write(content) if isinstance(path, ObjectPath) else files.write_file(path, content)


def write_json(path: Location, value: Any) -> None:
    """Writes indented JSON as `write_bytes` does."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def list_files(folder: Location) -> list[str]:
    """Returns the names of all files below a folder, relative to it; those of empty local folders end in a slash.

    Raises:
      StoreError: if a folder cannot be read.
    """
    return folder.names() if isinstance(folder, ObjectPath) else files.list_files(folder)


def remove(path: Location) -> None:
    """Removes a file, or a folder with its contents, if there is one.

    Raises:
      OSError, StoreError: if it cannot be removed.
    """
    path.remove() if isinstance(path, ObjectPath) else files.remove(path)


def sha256(content: bytes) -> str:
    """Returns the hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def read_verified(path: Location, facts: Any, most: int) -> bytes:
    """Returns a file's bytes after checking its size and checksum.

    Args:
      path: the file.
      facts: the expected "bytes" and "sha256".
      most: bytes that it may have, whatever is expected.

    Raises:
      CheckpointError: if the file is missing or different.
      StoreError: if it cannot be read.
    """
    try:
        content = read_bytes(path, min(most, facts["bytes"]))
        if len(content) != facts["bytes"]:
            raise CheckpointError(f"{path.name} has {len(content)} bytes instead of {facts['bytes']}")
        if sha256(content) != facts["sha256"]:
            raise CheckpointError(f"{path.name} is damaged: its checksum does not match the manifest")
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name} cannot be read ({error!r})") from None
    return content
