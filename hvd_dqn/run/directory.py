"""The run directory: one run's configuration, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from hvd_dqn.checkpoint.files import write_json_atomically
from hvd_dqn.checkpoint.storage import Location, ObjectPath, StoreError, open_location
from hvd_dqn.errors import USE_OLD_VERSION, UserError
from hvd_dqn.locations import is_url, scheme_of

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
_OLD_FIELDS = {"backend", "transport", "commit_period"}
"""Fields that configurations had up to version 0.1.0."""
LOCK_FILE = "lock"
TOKEN_PREFIX = ".shared-"
"""Of files by which the ranks find out at the start whether they see the same folder."""
_BEFORE_CONFIG = {LOCK_FILE, "metrics.jsonl", "tensorboard", "profile"}
"""Entries that a job may create before it writes its configuration."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunDirectory:
    """Paths below one run directory."""

    def __init__(self, path: Path) -> None:
        """Creates a path object. Reads and writes nothing."""
        self.path = path
        self.metrics = path / METRICS_FILE
        self.tensorboard = path / "tensorboard"
        self.profile = path / "profile"
        self.checkpoints = path / "checkpoints"
        self.waiting = path / "waiting"
        self._lock: int | None = None

    @classmethod
    def of(cls, runs_dir: str, env_id: str, name: str) -> RunDirectory:
        """Returns <runs_dir>/<env>/<name>, without creating it. Special characters of env_id become '-'."""
        return cls(Path(runs_dir) / re.sub(r"[^\w.-]+", "-", env_id).strip("-.") / name)

    @classmethod
    def create(cls, runs_dir: str, env_id: str, name: str, resumed: str = "") -> RunDirectory:
        """Creates a new run directory <runs_dir>/<env>/<name>.

        Args:
          runs_dir: the folder of all runs.
          env_id: the environment.
          name: the run's name, or "" for the date and time.
          resumed: a checkpoint path. An existing directory of the run that saves there is reused.

        Raises:
          UserError: if the directory already holds a run or cannot be created.
        """
        for attempt in range(100):
            own_name = name or time.strftime("%Y%m%d-%H%M%S") + (f"-{attempt}" if attempt else "")
            path = cls.of(runs_dir, env_id, own_name).path
            try:
                path.mkdir(parents=True)
                return cls(path)
            except FileExistsError:
                if name and path.is_dir() and _never_began(path):
                    return cls(path)
                if name and resumed and _saves_to(path, resumed):
                    return cls(path)
                if name:
                    raise UserError(
                        f"{path} exists already: choose another --name, or resume that run with --resume {path}"
                    ) from None
            except OSError as error:
                raise UserError(
                    f"cannot make the run directory {path}: {error.strerror}. Choose a writable folder with --runs-dir"
                ) from None
        raise UserError(f"found no free name for a run of {env_id} in {runs_dir}: give one with --name")

    @classmethod
    def open(cls, path: str) -> RunDirectory:
        """Opens an existing run directory.

        Raises:
          UserError: if the path is not a run directory.
        """
        directory = cls(Path(path))
        if not directory.path.is_dir():
            raise UserError(f"--resume {path}: no such directory")
        if not (directory.path / CONFIG_FILE).is_file():
            raise UserError(
                f"--resume {path}: not a run directory: no {CONFIG_FILE} in it; "
                "give the folder that contains config.json and checkpoints/"
            )
        return directory

    def checkpoints_at(self, url: str) -> Location:
        """Returns the location of the run's checkpoints: the checkpoint path, or a folder here if that is empty.

        Raises:
          UserError: if the checkpoint path cannot be reached.
        """
        return open_location(url, "--checkpoint-path") if url else self.checkpoints

    def start_over(self, url: str) -> None:
        """Removes the files of an earlier attempt that made no checkpoint. Does nothing if there is a checkpoint.

        Call this only after `lock`, since another job may be writing its first checkpoint.

        Args:
          url: the run's checkpoint path, or "".
        """
        if newest_checkpoint(self.checkpoints_at(url)) is None:
            self.metrics.unlink(missing_ok=True)
            for folder in (self.tensorboard, self.checkpoints):
                shutil.rmtree(folder, ignore_errors=True)

    def lock(self) -> None:
        """Locks the directory against other jobs until this process ends. The kernel releases the lock.

        Has no effect on a file system without locks.

        Raises:
          UserError: if another job has locked the directory, or it is not writable.
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
                f"another job is using {self.path} ({holder or 'unknown process'}): wait until it has ended, or send "
                "it SIGTERM (it saves and exits)"
            ) from None
        with contextlib.suppress(OSError):  # a full disk; the name of the holder is only for messages
            os.ftruncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._lock = lock
        os.register_at_fork(after_in_child=self._forget_lock)  # a child of an environment may outlive this process

    def discard_unbegun(self) -> None:
        """Removes the directory of a run that was refused before it began. Does nothing unless it is locked."""
        if self._lock is not None and _never_began(self.path):
            shutil.rmtree(self.path, ignore_errors=True)

    def _forget_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def unlock(self) -> None:
        """Releases the lock, if this process holds it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write_config(self, record: dict[str, Any]) -> None:
        """Writes config.json: the resolved configuration and the versions it ran with."""
        write_json_atomically(self.path / CONFIG_FILE, record)

    def read_config(self) -> dict[str, Any]:
        """Returns the flat configuration of config.json.

        Raises:
          UserError: if it cannot be read or is not a configuration of this program.
        """
        return _read_config(self.path / CONFIG_FILE)


def newest_checkpoint(folder: Location) -> int | None:
    """Returns the env steps of the newest complete checkpoint in a folder, or None."""
    names = [path.parent.name.partition("-")[0] for path in folder.glob("*/manifest.json")]
    return max((int(name) for name in names if name.isdecimal()), default=None)


def read_config_of(run: str) -> dict[str, Any]:
    """Returns the flat configuration of a run, given its run directory or checkpoint path.

    Raises:
      UserError: if there is no such run.
    """
    if not is_url(run):
        return RunDirectory.open(run).read_config()
    path = open_location(run, "--resume") / CONFIG_FILE
    if not path.exists():
        raise UserError(f"--resume {run}: not the checkpoint path of a run: no {CONFIG_FILE} there")
    return _read_config(path) | {"checkpoint_path": run}


def check_checkpoint_path(url: str, resumed: bool, ranks: int) -> None:
    """Checks that checkpoints can be written to a location outside the run directory.

    Args:
      url: the location, or "" for the run directory, which is not checked.
      resumed: whether the run that is stored there is being resumed.
      ranks: how many ranks will write.

    Raises:
      UserError: if the location cannot be reached, cannot be shared by the ranks, or holds another run.
    """
    if not url:
        return
    if scheme_of(url) == "memory" and ranks > 1:
        raise UserError(
            f"--checkpoint-path {url}: memory:// belongs to one process, and there are {ranks} ranks: start one rank, "
            "or choose a store that all ranks can reach"
        )
    folder = open_location(url, "--checkpoint-path")
    if isinstance(folder, ObjectPath):
        folder.reach()
    if (folder / CONFIG_FILE).exists() and not resumed:
        raise UserError(f"{url} already holds a run: resume it with --resume {url}, or choose another location")


def _read_config(path: Location) -> dict[str, Any]:
    try:
        flat = json.loads(path.read_bytes())["config"]
    except StoreError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not the configuration of a run of this program ({error!r})") from None
    if not isinstance(flat, dict):
        raise UserError(f"{path} is not the configuration of a run of this program: 'config' is no object")
    if _OLD_FIELDS & flat.keys():
        raise UserError(f"{path} was written by an older version of this program: {USE_OLD_VERSION}")
    return flat


def _saves_to(path: Path, checkpoint_path: str) -> bool:
    try:
        return bool(_read_config(path / CONFIG_FILE).get("checkpoint_path") == checkpoint_path)
    except UserError:
        return False


def _never_began(path: Path) -> bool:
    """Returns True if a directory is empty or holds only the files of a job that died while it started."""
    metrics = path / "metrics.jsonl"
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(TOKEN_PREFIX)}
    return names <= _BEFORE_CONFIG and not (metrics.exists() and metrics.stat().st_size)
