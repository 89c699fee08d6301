"""What one rank of a job holds to save and restore checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hvd_dqn.checkpoint.keepalive import with_keepalive
from hvd_dqn.checkpoint.lease import Lease
from hvd_dqn.checkpoint.segments import SegmentWriter
from hvd_dqn.checkpoint.storage import ObjectPath
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.checkpoint.writing import Writing
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.watchdog import Watchdog

Result = TypeVar("Result")


@dataclass
class CheckpointSession:
    """The store, the lease on it, this rank's segments, and the checkpoint that is being written."""

    communicator: Communicator
    watchdog: Watchdog
    store: CheckpointStore[Path] | CheckpointStore[ObjectPath]
    lease: Lease
    """Held by rank 0; the other ranks never take theirs."""
    segments: SegmentWriter
    metrics: Path | None
    """A file to save with checkpoints that are outside the run directory; None where they are inside it."""
    writing: Writing | None = None
    """The checkpoint that is being written."""
    begun_at: int | None = None
    """Env steps of the checkpoint that was begun last, equal on all ranks."""

    @property
    def outside_run_directory(self) -> bool:
        """Returns whether the checkpoints, and all else that a resume needs, are outside the run directory."""
        return self.metrics is not None

    @property
    def failed(self) -> bool:
        """Returns whether this rank could not write its part of the checkpoint in progress; differs between ranks."""
        return self.writing is not None and self.writing.failed

    def with_keepalive(self, doing: str, action: Callable[[], Result]) -> Callable[[], Result]:
        """Returns a function that returns each rank's result of an action on the store; a collective.

        The calls of an object store run here, see `keepalive.with_keepalive`. A local file system may never return:
        there the action runs later, when the returned function is called, and the watchdog limits it.
        """
        if not isinstance(self.store.folder, ObjectPath):
            return action
        return with_keepalive(self.communicator, self.watchdog, doing, action)  # COLLECTIVE
