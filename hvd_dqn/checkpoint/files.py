"""Atomic writes and verified reads of files and objects."""

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
    """Writes a file under a temporary name, syncs it to disk and renames it. An object is written in one call."""
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
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Syncs a folder's entries to disk where the file system can, so that a rename survives a power failure."""
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
    """Removes a folder with its contents."""
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
    """Returns a file's bytes after checking its size and checksum.

    Args:
      path: the file.
      facts: the expected "bytes" and "sha256".

    Raises:
      CheckpointError: if the file is missing, unreadable or different.
      StoreError: if the object store does not answer.
    """
    try:
        size = path.stat().st_size  # checked first, so that a wrong file is never read
        if size != facts["bytes"]:
            raise CheckpointError(f"{path.name} has {size} bytes instead of {facts['bytes']}")
        content = path.read_bytes()
        if sha256(content) != facts["sha256"]:
            raise CheckpointError(f"{path.name} is damaged: its checksum does not match the manifest")
    except (OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name} cannot be read ({error!r})") from None
    return content
