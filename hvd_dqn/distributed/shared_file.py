"""Memory that the ranks of one host share: a file that has no name once all have opened it, so no kill leaves it."""

from __future__ import annotations

import mmap
import os
import secrets
import tempfile
from collections.abc import Sequence

from hvd_dqn.distributed.agreement import raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.errors import UserError

_FOLDER = "/dev/shm"


def open_shared(communicator: Communicator, size: int, group: Sequence[int] = ()) -> mmap.mmap:
    """Takes the memory, zero at the start; a collective.

    Args:
      communicator: they carry the agreement.
      size: bytes.
      group: the ranks of this host, the first of which creates the file; by default all are on one.

    Raises:
      UserError: on all ranks, if the memory is short on any host or is not the same for all of a group.
    """
    creator, created = group[0] if group else 0, list[tuple[str, str]]()

    def create() -> None:
        if communicator.rank == creator:
            created.append(_create(size))

    try:
        raise_on_any_rank(communicator, create)  # COLLECTIVE
        ((path, mark),) = communicator.gather_json(created)[creator]  # COLLECTIVE
        return raise_on_any_rank(communicator, lambda: _open(path, size, mark))  # COLLECTIVE
    finally:
        for own, _ in created:
            os.unlink(own)


def _create(size: int) -> tuple[str, str]:
    """Creates the file and returns its path and the mark at its end, by which the others know it.

    Raises:
      UserError: if there is not so much shared memory.
    """
    mark = secrets.token_hex(16)
    try:
        file, path = tempfile.mkstemp(prefix="hvd_dqn-", dir=_FOLDER)
    except OSError as error:
        raise UserError(f"no shared memory: {error}") from error
    try:
        os.posix_fallocate(file, 0, size + len(mark))  # taken now: a page that is missing later would be a SIGBUS
        os.pwrite(file, mark.encode(), size)
    except OSError as error:
        os.unlink(path)
        raise UserError(
            f"{size / 1e6:.0f} MB of shared memory in {_FOLDER}: {error.strerror}; a container's is set by --shm-size"
        ) from error
    finally:
        os.close(file)
    return path, mark


def _open(path: str, size: int, mark: str) -> mmap.mmap:
    """Maps the file.

    Raises:
      UserError: if this is not the creator's file: another host, or another container.
    """
    try:
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
    except OSError as error:
        raise UserError(f"ranks do not share {_FOLDER}: {error.strerror}") from error
    if memory[size:] != mark.encode():
        raise UserError(f"ranks do not share {_FOLDER}: another file has the name {path}")
    return memory
