"""The run directory: one run's configuration, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from hvd_dqn.checkpoint.files import list_files, write_json
from hvd_dqn.checkpoint.listing import newest_checkpoint
from hvd_dqn.checkpoint.storage import Location, ObjectPath, open_location
from hvd_dqn.errors import StoreError, UserError
from hvd_dqn.files import remove
from hvd_dqn.locations import is_url, scheme_of
from hvd_dqn.run.config_file import CONFIG_FILE, has_config, read_config
from hvd_dqn.run.lock import LOCK_FILE, DirectoryLock

METRICS_FILE = "metrics.jsonl"
TRACKED_FILE = "tracked.json"
"""The id of the run at each tracker."""
TOKEN_PREFIX = ".shared-"
"""Of files by which the ranks find out at the start whether they see the same folder."""
_BEFORE_CONFIG = re.compile(
    rf"({LOCK_FILE}|{METRICS_FILE}|{TRACKED_FILE}|{re.escape(TOKEN_PREFIX)}.*|\..*\.tmp|(tensorboard|profile|waiting|wandb)(/.*)?"
    r"|checkpoints(/parts-.*|/\..*\.tmp|/replay.*|/)?)"
)
"""Files that a job may leave if it ends before it has written its configuration."""
_OWN = (
    *(CONFIG_FILE, METRICS_FILE, LOCK_FILE, TRACKED_FILE),
    *("tensorboard", "profile", "waiting", "videos", "checkpoints"),
)


class RunDirectory:
    """Paths below one run directory."""

    def __init__(self, path: Path) -> None:
        """Creates a path object. Reads and writes nothing."""
        self.path = path = Path(os.path.realpath(path))  # a link below it was not put there by the run
        self.metrics = path / METRICS_FILE
        self.tensorboard = path / "tensorboard"
        self.profile = path / "profile"
        self.checkpoints = path / "checkpoints"
        self.waiting = path / "waiting"
        self.videos = path / "videos"
        self._lock = DirectoryLock(path)
        self._config: dict[str, Any] | None = None

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
                if name and (_never_began(path) or (resumed and _saves_to(path, resumed))):
                    return cls(path)
                if name:
                    raise UserError(_exists_already(path)) from None
            except OSError as error:
                raise UserError(
                    f"cannot make the run directory {path}: {error.strerror}. Choose a writable folder with --runs-dir"
                ) from None
        raise UserError(f"found no free name for a run of {env_id} in {runs_dir}: give one with --name")

    @classmethod
    def open(cls, path: str, asked: str = "--resume ") -> RunDirectory:
        """Opens an existing run directory.

        Args:
          path: of the directory.
          asked: what stands before the path in messages.

        Raises:
          UserError: if the path is not a run directory.
        """
        directory = cls(Path(path))
        if not os.path.isdir(path):
            raise UserError(f"{asked}{path}: no such directory, or it cannot be read")
        if not has_config(directory.path):
            raise UserError(
                f"{asked}{path}: not a run directory: no {CONFIG_FILE} in it; "
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
            for path in (self.metrics, self.tensorboard, self.checkpoints, self.path / TRACKED_FILE):
                remove(path)

    def lock(self) -> None:
        """Locks the directory against other jobs until this process ends. The kernel releases the lock.

        Has no effect on a file system without locks.

        Raises:
          UserError: if another job has locked the directory, it is not writable, or a link in it leads elsewhere.
        """
        _refuse_links(self.path)
        self._lock.take()

    def discard_unbegun(self) -> None:
        """Removes the directory of a run that was refused before it began. Does nothing unless it is locked."""
        with contextlib.suppress(StoreError):  # what cannot be read is kept
            if self._lock.held and _never_began(self.path):
                shutil.rmtree(self.path, ignore_errors=True)

    def unlock(self) -> None:
        """Releases the lock, if this process holds it."""
        self._lock.release()

    def write_config(self, record: dict[str, Any]) -> None:
        """Writes config.json: the resolved configuration and the versions it ran with."""
        write_json(self.path / CONFIG_FILE, record)
        self._config = record

    def make_whole(self) -> bool:
        """Makes the directory again if it was removed while this process works in it; returns whether it was.

        Raises:
          UserError: if another job uses it now, or it cannot be made.
        """
        if self._lock.in_place and os.path.lexists(self.path / CONFIG_FILE):
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        self.unlock()
        self.lock()
        if self._config is not None:
            self.write_config(self._config)
        return True

    def read_config(self) -> dict[str, Any]:
        """Returns the flat configuration of config.json.

        Raises:
          UserError: if it cannot be read or is not a configuration of this program.
        """
        return read_config(self.path / CONFIG_FILE)


def read_config_of(run: str, asked: str = "--resume ") -> dict[str, Any]:
    """Returns the flat configuration of a run, given its run directory or checkpoint path.

    Args:
      run: the place.
      asked: what stands before it in messages.

    Raises:
      UserError: if there is no such run.
    """
    if not is_url(run):
        return RunDirectory.open(run, asked).read_config()
    folder = open_location(run, asked.strip() or run)
    if not has_config(folder):
        raise UserError(f"{asked}{run}: not the checkpoint path of a run: no {CONFIG_FILE} there")
    return read_config(folder / CONFIG_FILE) | {"checkpoint_path": run}


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
    if has_config(folder) and not resumed:
        raise UserError(f"{url} already holds a run: resume it with --resume {url}, or choose another location")


def _saves_to(path: Path, checkpoint_path: str) -> bool:
    try:
        return bool(read_config(path / CONFIG_FILE).get("checkpoint_path") == checkpoint_path)
    except UserError:
        return False


def _never_began(path: Path) -> bool:
    """Returns True if a directory is empty or holds only the files of a job that ended while it started.

    Raises:
      StoreError: if that cannot be found out.
    """
    if not os.path.isdir(path) or not all(_BEFORE_CONFIG.fullmatch(name) for name in list_files(path)):
        return False
    metrics = path / METRICS_FILE
    return not (os.path.isfile(metrics) and os.path.getsize(metrics))


def _exists_already(path: Path) -> str:
    """Returns why a new run cannot use a path, and what to do instead."""
    remedy = f"resume that run with --resume {path}"
    if not os.path.isdir(path) or not has_config(path):
        remedy = f"move it away: it is no run that can be resumed, as it has no {CONFIG_FILE}"
    return f"{path} exists already: choose another --name, or {remedy}"


def _refuse_links(path: Path) -> None:
    """Checks that nothing that a job writes in its directory is a link.

    Raises:
      UserError: if it is.
    """
    for own in [path / name for name in _OWN] + [path / "profile" / "horovod.timeline.json"]:
        if os.path.islink(own):
            raise UserError(
                f"{own} is a link to {os.readlink(own)}, and a job writes to no place outside its run directory: put "
                "the files themselves there, or give another place with --runs-dir or --checkpoint-path"
            )
