"""One job per checkpoint path, where no kernel keeps a lock: a claim that its holder renews.

    <checkpoint path>/claim.json      the holder, and a count that goes up every BEAT_SECONDS

Nobody's clock is compared with another's: a newcomer watches a claim for STALE_SECONDS, and takes it over if it has not
changed; at once if its holder was a process of this machine and is no more. The holder looks at the claim before each
manifest and before it removes anything. Between such a look and what follows it, a job that was given up for dead can
still do damage.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Protocol

from hvd_dqn.checkpoint.files import write_json_atomically
from hvd_dqn.checkpoint.storage import Location
from hvd_dqn.errors import UserError

CLAIM_FILE = "claim.json"
BEAT_SECONDS = 10.0
STALE_SECONDS = 3 * BEAT_SECONDS
_LOOK_SECONDS = 1.0
_RELEASE_SECONDS = 10.0


class Claim(Protocol):
    """What keeps two jobs from writing checkpoints to one place; used on rank 0 alone."""

    def check(self) -> None:
        """Makes sure that it is still held.

        Raises:
          UserError: if it is not.
        """

    def release(self) -> None:
        """Gives it back, as well as that can be done."""


class NoClaim:
    """For checkpoints in the run directory, which has a lock: held until it is released."""

    def __init__(self) -> None:
        """Holds it."""
        self._released = False

    def check(self) -> None:
        """Makes sure that this job has not ended: a thread of it may still be writing.

        Raises:
          UserError: if it has.
        """
        if self._released:
            raise UserError("this job has given up its checkpoints")

    def release(self) -> None:
        """Lets nothing be written or removed any more."""
        self._released = True


class RenewedClaim:
    """A claim in a file beside the checkpoints."""

    def __init__(
        self, folder: Location, beat_seconds: float = BEAT_SECONDS, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        """Names the place; nothing is looked at.

        Args:
          folder: the checkpoint path.
          beat_seconds: time between two renewals; a claim is stale after three without one.
          look_seconds: time between two looks of a newcomer.
        """
        self._folder = folder
        self._path = folder / CLAIM_FILE
        self._beat_seconds = beat_seconds
        self._look_seconds = look_seconds
        self._token = secrets.token_hex(8)
        self._seen: tuple[bytes, float] | None = None
        self._beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="claim", daemon=True)

    def free(self) -> bool:
        """Looks, after a moment, whether there is no claim, or one that nobody renews.

        Raises:
          UserError: if another job renews it.
        """
        if self._seen is not None:
            time.sleep(self._look_seconds)
        content = self._read()
        if content is None:
            return True
        now = time.monotonic()
        if self._seen is None:
            self._seen = content, now
        if content != self._seen[0]:
            raise UserError(
                f"another job saves to {self._folder} ({_holder(content)}): wait until it has ended, end it with "
                "SIGTERM, which saves it, or choose another --checkpoint-path"
            )
        return _ended_here(content) or now - self._seen[1] >= 3 * self._beat_seconds

    def take(self) -> None:
        """Writes the claim and sees whether it is still there a moment later.

        Raises:
          UserError: if another job came at the same time, or the place cannot be written.
        """
        self._write()
        time.sleep(self._look_seconds)
        self.check()
        self._thread.start()

    def check(self) -> None:
        """Makes sure that the claim is this job's.

        Raises:
          UserError: if another job has taken it.
        """
        content = self._read()
        if content is None or _field(content, "token") != self._token:
            holder = "it is gone" if content is None else _holder(content)
            raise UserError(
                f"another job has taken {self._folder} over ({holder}): this one saves nothing there any more; end "
                "it, or the other one"
            )

    def release(self) -> None:
        """Ends the renewals and removes the claim if it is this job's, unless the store does not answer."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(_RELEASE_SECONDS)

    def _renew(self) -> None:
        while not self._over.wait(self._beat_seconds):
            with contextlib.suppress(UserError, OSError):  # the network is gone for a while, or the claim for good
                self.check()
                self._write()
        with contextlib.suppress(UserError, OSError):
            self.check()
            self._path.unlink()

    def _write(self) -> None:
        self._beats += 1
        claim = {
            "token": self._token,
            "beats": self._beats,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "machine": _machine(),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json_atomically(self._path, claim)

    def _read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None


def _machine() -> str:
    """Returns what tells this machine, since it was started, and its table of processes from all others."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def _ended_here(content: bytes) -> bool:
    """Returns whether a claim's holder was a process of this machine and is no more."""
    process = _field(content, "process")
    if _field(content, "machine") != _machine() or not isinstance(process, int):
        return False
    return not Path(f"/proc/{process}").exists()


def _field(content: bytes, name: str) -> object:
    try:
        return json.loads(content)[name]
    except (ValueError, KeyError, TypeError):
        return None


def _holder(content: bytes) -> str:
    return f"process {_field(content, 'process')} on {_field(content, 'host')}"
