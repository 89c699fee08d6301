"""A lease on a checkpoint path, so that only one job writes there. For stores that have no locks.

    <checkpoint path>/lease.json      the holder, and a counter that the holder raises every RENEWAL_SECONDS

No clocks are compared. A newcomer watches the lease for STALE_SECONDS and takes it over if it has not changed. It takes
over at once if the holder was a process on the same machine and has ended. The holder checks its lease before it writes
a manifest and before it removes anything. A job that pauses between such a check and the write, and has lost its lease
meanwhile, can still do damage.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Protocol

from hvd_dqn.checkpoint.files import read_bytes, remove, write_json
from hvd_dqn.checkpoint.storage import Location
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.files import parse_json

LEASE_FILE = "lease.json"
RENEWAL_SECONDS = 10.0
STALE_SECONDS = 3 * RENEWAL_SECONDS
_POLL_SECONDS = 1.0
_MOST_BYTES = 2**16
_RELEASE_SECONDS = 10.0


class Lease(Protocol):
    """Keeps two jobs from writing checkpoints to one place. Used on rank 0 only."""

    def check(self) -> None:
        """Checks that this job still holds the lease.

        Raises:
          UserError: if another job holds it.
        """

    def release(self) -> None:
        """Gives the lease back. Errors of the store are ignored."""


class NoLease:
    """The lease of checkpoints in the run directory, which has a lock of its own."""

    def __init__(self) -> None:
        """Creates a lease that is held until it is released."""
        self._released = False

    def check(self) -> None:
        """Checks that the lease is not released, since a thread of an ended job may still be writing.

        Raises:
          UserError: if it is released.
        """
        if self._released:
            raise UserError("this job has given up its checkpoints")

    def release(self) -> None:
        """Forbids further writes and removals."""
        self._released = True


class RenewedLease:
    """A lease in a file next to the checkpoints, renewed by a thread."""

    def __init__(
        self, folder: Location, renewal_seconds: float = RENEWAL_SECONDS, poll_seconds: float = _POLL_SECONDS
    ) -> None:
        """Creates a lease object. Reads and writes nothing.

        Args:
          folder: the checkpoint path.
          renewal_seconds: time between two renewals. A lease is stale after three missed renewals.
          poll_seconds: time between two checks by a newcomer.
        """
        self._folder = folder
        self._path = folder / LEASE_FILE
        self._renewal_seconds = renewal_seconds
        self._poll_seconds = poll_seconds
        self._token = secrets.token_hex(8)
        self._seen: tuple[bytes, float] | None = None
        self._renewals = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def is_free(self) -> bool:
        """Returns True if there is no lease, or a stale one. Waits `poll_seconds` on every call but the first.

        Raises:
          UserError: if another job renews the lease.
        """
        if self._seen is not None:
            time.sleep(self._poll_seconds)
        content = self._read()
        if content is None:
            return True
        now = time.monotonic()
        if self._seen is None:
            self._seen = content, now
        if content != self._seen[0]:
            raise UserError(
                f"another job saves to {self._folder} ({_holder(content)}): wait until it has ended, send it "
                "SIGTERM (it saves and exits), or choose another --checkpoint-path"
            )
        return _ended_here(content) or now - self._seen[1] >= 3 * self._renewal_seconds

    def acquire(self) -> None:
        """Writes the lease, checks after `poll_seconds` that it is still there, and starts the renewals.

        Raises:
          UserError: if another job took the lease at the same time, or the place cannot be written.
        """
        self._write()
        time.sleep(self._poll_seconds)
        self.check()
        self._thread.start()

    def check(self) -> None:
        """Checks that this job still holds the lease.

        Raises:
          UserError: if another job has taken it.
        """
        content = self._read()
        if content is None or _field(content, "token") != self._token:
            holder = "the lease is gone" if content is None else _holder(content)
            raise UserError(
                f"another job has taken over {self._folder} ({holder}): this job writes no more checkpoints there. "
                "Stop one of the two jobs"
            )

    def release(self) -> None:
        """Stops the renewals and removes the lease if this job holds it and the store answers."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(_RELEASE_SECONDS)

    def _renew(self) -> None:
        while not self._over.wait(self._renewal_seconds):
            with contextlib.suppress(UserError, OSError):  # a network failure, or the lease was taken over
                self.check()
                self._write()
        with contextlib.suppress(UserError, OSError):
            self.check()
            remove(self._path)

    def _write(self) -> None:
        self._renewals += 1
        lease = {
            "token": self._token,
            "renewals": self._renewals,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "machine": _machine(),
        }
        write_json(self._path, lease)

    def _read(self) -> bytes | None:
        try:
            return read_bytes(self._path, _MOST_BYTES)
        except FileNotFoundError:
            return None
        except CheckpointError as error:
            raise UserError(f"{self._path} is not a lease ({error}): remove it if no job saves there") from None


def _machine() -> str:
    """Returns an identifier of this machine's boot and process table (PID namespace)."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def _ended_here(content: bytes) -> bool:
    """Returns True if the holder of a lease was a process on this machine and has ended."""
    process = _field(content, "process")
    if _field(content, "machine") != _machine() or not isinstance(process, int):
        return False
    return not Path(f"/proc/{process}").exists()


def _field(content: bytes, name: str) -> object:
    try:
        return parse_json(content)[name]
    except (ValueError, KeyError, TypeError):
        return None


def _holder(content: bytes) -> str:
    return f"process {_field(content, 'process')} on {_field(content, 'host')}"
