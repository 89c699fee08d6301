"""The run directory: where one run's configuration, metrics and checkpoints lie."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from hvd_dqn.errors import UserError
from hvd_dqn.job.files import write_json_atomically

CONFIG_FILE = "config.json"
LOCK_FILE = "lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunDirectory:
    """Paths below one run directory; used by rank 0 alone."""

    def __init__(self, path: Path) -> None:
        """Names a run directory; nothing is touched."""
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.profile = path / "profile"
        self.checkpoints = path / "checkpoints"
        self._lock: int | None = None

    @classmethod
    def create(cls, runs_dir: str, env_id: str, name: str) -> RunDirectory:
        """Makes a new run directory <runs_dir>/<env>/<name>.

        Args:
          runs_dir: folder of all runs.
          env_id: the environment; characters that do not suit a folder's name become '-'.
          name: the run's name, or "" for date and time.

        Raises:
          UserError: if the directory holds a run already or cannot be made.
        """
        folder = Path(runs_dir) / re.sub(r"[^\w.-]+", "-", env_id)
        for attempt in range(100):
            path = folder / (name or time.strftime("%Y%m%d-%H%M%S") + (f"-{attempt}" if attempt else ""))
            try:
                path.mkdir(parents=True)
                return cls(path)
            except FileExistsError:
                if name and path.is_dir() and not any(path.iterdir()):
                    return cls(path)
                if name:
                    raise UserError(
                        f"{path} exists already: choose another --name, or go on with it by --resume {path}"
                    ) from None
            except OSError as error:
                raise UserError(
                    f"cannot make the run directory {path}: {error.strerror}. "
                    "Choose a folder that you may write with --runs-dir"
                ) from None
        raise UserError(f"no free name for a run below {folder}: give one with --name")

    @classmethod
    def open(cls, path: str) -> RunDirectory:
        """Opens an existing run directory.

        Raises:
          UserError: if it is none.
        """
        directory = cls(Path(path))
        if not directory.path.is_dir():
            raise UserError(f"--resume {path}: there is no such directory")
        if not (directory.path / CONFIG_FILE).is_file():
            raise UserError(
                f"--resume {path}: no {CONFIG_FILE} in it, so it is not a run directory of this program; "
                "give the folder that holds config.json and checkpoints/"
            )
        return directory

    def claim(self) -> None:
        """Keeps other jobs out for as long as this process lives, however it ends: the lock is the kernel's.

        A file system that knows no locks keeps nobody out.

        Raises:
          UserError: if another job works here, or nothing can be written here.
        """
        path = self.path / LOCK_FILE
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"cannot write into the run directory {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 1000).decode(errors="replace").strip()
            os.close(lock)
            if error.errno in _NO_LOCKS:
                return
            raise UserError(
                f"another job works in {self.path} ({holder or 'not known which'}): wait until it has ended, or end it "
                "with SIGTERM, which saves it"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: who holds it is only a courtesy
            os.ftruncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._lock = lock

    def release(self) -> None:
        """Lets other processes in again; does nothing where this one kept nobody out."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write_config(self, record: dict[str, Any]) -> None:
        """Writes config.json: the resolved configuration and what it ran on."""
        write_json_atomically(self.path / CONFIG_FILE, record)

    def read_config(self) -> dict[str, Any]:
        """Returns the flat configuration of config.json.

        Raises:
          UserError: if it cannot be read or holds no configuration of this program.
        """
        path = self.path / CONFIG_FILE
        try:
            flat = json.loads(path.read_text())["config"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not the configuration of a run of this program ({error!r})") from None
        if not isinstance(flat, dict):
            raise UserError(f"{path} is not the configuration of a run of this program: 'config' is no object")
        return flat
