"""Opens the run directory for all ranks and holds its lock while this process works in it."""

from __future__ import annotations

import os
from pathlib import Path

from hvd_dqn.checkpoint.listing import newest_checkpoint
from hvd_dqn.config import FIXED_ON_RESUME, RESUME_AUTO, Config, flatten, replace
from hvd_dqn.distributed.agreement import on_root
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.errors import UserError
from hvd_dqn.locations import is_url
from hvd_dqn.run.directory import RunDirectory, check_checkpoint_path, read_config_of
from hvd_dqn.run.shared_folder import check_shared_folder
from hvd_dqn.validation import flag


class RunDirectoryHandle:
    """The run directory, once it is known; an elastic job opens it again whenever its ranks have changed."""

    def __init__(self) -> None:
        """Knows no directory yet. Relative paths are those of the present working folder."""
        self.directory: RunDirectory | None = None
        self._folder = os.getcwd()

    def open(self, config: Config, communicator: Communicator) -> RunDirectory:
        """Creates or opens the run directory and locks it on rank 0; a collective.

        Raises:
          UserError: on all ranks, if it cannot be used.
        """
        config = self._with_absolute_paths(config)
        begins = self.directory is None
        if self.directory is None:
            path = on_root(communicator, lambda: str(_create_or_open(config, communicator.size).path))  # COLLECTIVE
            self.directory = RunDirectory(Path(path))
        directory = self.directory
        on_root(communicator, lambda: _lock(directory))  # COLLECTIVE
        _check_shared(config.job.checkpoint_path, communicator, directory)  # COLLECTIVE
        if begins and config.job.resume == RESUME_AUTO:
            on_root(communicator, lambda: directory.start_over(config.job.checkpoint_path))  # COLLECTIVE
        return directory

    def _with_absolute_paths(self, config: Config) -> Config:
        """Returns a configuration whose paths hold when an environment has changed the working folder."""
        paths = {"runs_dir": config.job.runs_dir, "resume": config.job.resume}
        relative = {name: path for name, path in paths.items() if path not in ("", RESUME_AUTO) and not is_url(path)}
        return replace(config, {name: os.path.join(self._folder, path) for name, path in relative.items()})

    def close(self, keep: bool = False) -> None:
        """Releases the lock; removes the directory of a run that never began, unless it is to be kept."""
        if self.directory is not None:
            if not keep:
                self.directory.discard_unbegun()
            self.directory.unlock()


def _create_or_open(config: Config, ranks: int) -> RunDirectory:
    """Returns the run directory, which exists; called on rank 0 alone."""
    job = config.job
    known = job.resume
    if job.resume == RESUME_AUTO:
        directory = RunDirectory.of(job.runs_dir, config.environment.env, job.name)
        begun = newest_checkpoint(directory.checkpoints_at(job.checkpoint_path)) is not None
        known = (job.checkpoint_path or str(directory.path)) if begun else ""
    if known:
        _check_same_run(known, config)
    check_checkpoint_path(job.checkpoint_path, bool(job.resume), ranks)
    if job.resume == RESUME_AUTO:
        directory.path.mkdir(parents=True, exist_ok=True)
        return directory
    if job.resume and not is_url(job.resume):
        return RunDirectory.open(job.resume)
    return RunDirectory.create(job.runs_dir, config.environment.env, job.name, job.resume)


def _check_same_run(known: str, config: Config) -> None:
    """Refuses to resume a run with another value of a field that cannot change."""
    before, now = read_config_of(known), flatten(config)
    for name, reason in FIXED_ON_RESUME.items():
        if name in before and before[name] != now[name]:
            raise UserError(
                f"{known} was trained with another configuration: {flag(name)} {before[name] or '(empty)'}, not "
                f"{now[name] or '(empty)'}: {reason}. To resume this one, leave {flag(name)} out"
            )


def _lock(directory: RunDirectory) -> None:
    """Locks the directory for this job; rank 0 may be on another host now, where it does not exist yet."""
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.lock()


def _check_shared(url: str, communicator: Communicator, directory: RunDirectory) -> None:
    """Refuses a folder for the checkpoints that is not the same on all hosts; object stores are. A collective."""
    place = directory.checkpoints_at(url) if url else directory.path
    if isinstance(place, Path) and communicator.size > 1:
        check_shared_folder(communicator, place, "--checkpoint-path" if url else "--runs-dir")  # COLLECTIVE
