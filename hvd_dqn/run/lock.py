"""The lock that gives a run directory to one job."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path

from hvd_dqn.errors import UserError
from hvd_dqn.files import open_regular

LOCK_FILE = "lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class DirectoryLock:
    """A kernel's lock on a file of the directory, held until the process ends. A forked child does not hold it."""

    def __init__(self, folder: Path) -> None:
        """Prepares the lock of a directory."""
        self._folder = folder
        self._lock: int | None = None

    def take(self) -> None:
        """Takes the lock. Has no effect on a file system without locks.

        Raises:
          UserError: if another job holds it, or the directory is not writable.
        """
        try:
            lock = open_regular(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UserError(
                f"cannot write into the run directory {self._folder}: {LOCK_FILE}: {error.strerror}"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 1000).decode(errors="replace").strip()
            os.close(lock)
            if error.errno in _NO_LOCKS:
                return
            raise UserError(
                f"another job is using {self._folder} ({holder or 'unknown process'}): wait until it has ended, or "
                "send it SIGTERM (it saves and exits)"
            ) from None
        with contextlib.suppress(OSError):  # a full disk; the name of the holder is only for messages
            os.ftruncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._lock = lock
        os.register_at_fork(after_in_child=self.release)  # a child of an environment may outlive this process

    def release(self) -> None:
        """Releases the lock, if this process holds it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def held(self) -> bool:
        """Returns whether this process holds the lock."""
        return self._lock is not None

    @property
    def in_place(self) -> bool:
        """Returns whether the file that this process has locked is still there; True without locks."""
        try:
            return self._lock is None or os.path.samestat(os.fstat(self._lock), os.stat(self._folder / LOCK_FILE))
        except FileNotFoundError:
            return False


def is_locked(folder: Path) -> bool:
    """Returns whether a job on this machine has locked a directory, without touching the lock.

    A lock of another machine, and one on a file system without locks, is not seen.
    """
    try:
        lock = os.stat(folder / LOCK_FILE, follow_symlinks=False)
        held = Path("/proc/locks").read_text().split()
    except OSError:
        return False
    return f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}" in held
