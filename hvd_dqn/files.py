"""Local files of a run: bounded reads of regular files, atomic writes, and no link followed on the way.

Callers resolve the folder that a run owns, so a link in a path below it was not put there by the run.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from hvd_dqn.errors import CheckpointError, StoreError

CONFIG_BYTES = 2**20
"""The most bytes of a configuration."""
METRICS_BYTES = 2**30
"""The most bytes of a run's metrics."""
_LONGEST_NUMBER = 40
"""Digits of an integer in JSON; the state of a random generator has 39."""
_NO_REGULAR_FILE = (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENOTDIR, errno.EISDIR)
_NO_FOLLOW = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_file(path: Path, most: int) -> bytes:
    """Returns the content of a regular file.

    Args:
      path: the file.
      most: bytes that it may have.

    Raises:
      FileNotFoundError: if it is absent.
      CheckpointError: if it is a link, a folder, a pipe or a device, or too large.
      StoreError: if it cannot be read, for want of permission for example.
    """
    try:
        check_no_links(path)
        descriptor = open_regular(path, os.O_RDONLY)
        with open(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size > most:
                raise CheckpointError(f"{path.name} has {size:,} bytes, more than {most:,}")
            return file.read(size)
    except FileNotFoundError:
        raise
    except MemoryError:
        raise CheckpointError(f"{path.name} does not fit into memory") from None
    except OSError as error:
        if error.errno in _NO_REGULAR_FILE:
            raise CheckpointError(f"{path.name} is not a regular file ({error.strerror})") from None
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None


def open_regular(path: Path, flags: int) -> int:
    """Opens a regular file without waiting and without following a link at its place.

    Raises:
      OSError: if it cannot be opened or is something else.
    """
    descriptor = os.open(path, flags | _NO_FOLLOW, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "not a regular file", str(path))
    return descriptor


def write_file(path: Path, content: bytes, durable: bool = True) -> None:
    """Writes a file under a temporary name and renames it. Creates its folder.

    Args:
      path: the file; a link in its place is replaced.
      content: the bytes.
      durable: whether to wait until they are on the disk.

    Raises:
      OSError: if it cannot be written, or a folder on the way is a link.
    """
    check_no_links(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def list_files(folder: Path) -> list[str]:
    """Returns the names of all files below a folder, relative to it; those of empty folders end in a slash.

    Raises:
      StoreError: if a folder cannot be read. One that is absent is empty.
    """
    found: list[str] = []

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # removed meanwhile
            raise StoreError(f"{error.filename} cannot be read: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        relative = os.path.relpath(place, folder)
        names = [*files, *links] if folders or files or relative == "." else [""]
        found += [os.path.normpath(os.path.join(relative, name)) + ("" if name else "/") for name in names]
    return sorted(found)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with its contents; does nothing if there is none.

    Raises:
      OSError: if it cannot be removed, or a folder on the way is a link.
    """
    check_no_links(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def parse_json(content: bytes | str) -> Any:
    """Parses JSON of bounded depth and numbers.

    Raises:
      ValueError: if it is none.
    """
    try:
        return json.loads(content, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"{digits[:20]}... is too large a number")
    return int(digits)


def check_no_links(path: Path) -> None:
    """Checks that no folder on the way to a file is a link.

    Raises:
      OSError: if one is.
    """
    folder = os.path.abspath(path.parent)
    if os.path.realpath(folder) != folder:
        raise OSError(errno.ELOOP, "a folder on the way is a link, which is not followed", str(path))


def _sync_folder(folder: Path) -> None:
    """Syncs a folder's entries to disk where the file system can, so that a rename survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
