"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from hvd_dqn.checkpoint.storage import Location, ObjectPath, StoreError
from hvd_dqn.errors import CheckpointError


def write_bytes_atomically(path: Location, content: bytes) -> None:
    """Writes a file under a temporary name, forces it to disk, and gives it its name; an object is put in one call."""
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _force_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _force_names(folder: Path) -> None:
    """Forces a folder's entries to disk, where the file system can: the new name outlives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json_atomically(path: Location, value: Any) -> None:
    """Writes indented JSON as `write_bytes_atomically` does."""
    write_bytes_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def remove_tree(folder: Location, ignore_errors: bool = False) -> None:
    """Removes a folder and all that it holds."""
    if not isinstance(folder, ObjectPath):
        shutil.rmtree(folder, ignore_errors)
        return
    try:
        folder.rmtree()
    except StoreError:
        if not ignore_errors:
            raise


def sha256(content: bytes) -> str:
    """Returns the hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def read_verified(path: Location, facts: dict[str, Any]) -> bytes:
    """Returns a file's bytes after comparing its size and checksum with those that were noted.

    Args:
      path: the file.
      facts: its "bytes" and "sha256".

    Raises:
      CheckpointError: if the file is missing, cannot be read, or is another.
      StoreError: if an object store cannot be asked.
    """
    try:
        size = path.stat().st_size  # first: what is not the file is not read
        if size != facts["bytes"]:
            raise CheckpointError(f"{path.name} has {size} bytes instead of {facts['bytes']}")
        content = path.read_bytes()
        if sha256(content) != facts["sha256"]:
            raise CheckpointError(f"{path.name} is damaged: its checksum is not the manifest's")
    except (OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name} cannot be read ({error!r})") from None
    return content
