"""Opens the store of a job's checkpoints and takes the lease that keeps other jobs from writing there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hvd_dqn.checkpoint.lease import STALE_SECONDS, NoLease, RenewedLease
from hvd_dqn.checkpoint.segments import SegmentWriter
from hvd_dqn.checkpoint.session import CheckpointSession
from hvd_dqn.checkpoint.storage import open_location
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.watchdog import Watchdog


def open_checkpoint_store(
    url: str,
    own: Path,
    keep: int,
    *,
    metrics: Path,
    communicator: Communicator,
    watchdog: Watchdog,
    message: Callable[[str], None],
) -> CheckpointSession:
    """Opens the checkpoint store and, if it is not the run directory, takes its lease; a collective.

    A lease that a killed job may have left behind is watched until it is known to be stale.

    Args:
      url: the checkpoint path, or "" for the run directory.
      own: the folder of checkpoints in the run directory, which has a lock.
      keep: how many checkpoints to keep.
      metrics: the run's metrics, copied to a checkpoint path.
      communicator: the job's.
      watchdog: this rank's.
      message: prints a line on rank 0.

    Raises:
      UserError: on all ranks, if another job holds the lease or nothing can be written.
    """
    rank, size = communicator.rank, communicator.size
    if not url:
        lock = NoLease()
        local = CheckpointStore(own, keep, lock.check)
        segments = SegmentWriter(local.replay_folder, rank, size)
        return CheckpointSession(communicator, watchdog, local, lock, segments, None)
    folder = raise_on_any_rank(communicator, lambda: open_location(url, "--checkpoint-path"))  # COLLECTIVE
    message(f"checkpoints go to {folder}")
    lease = RenewedLease(folder)
    free = on_root(communicator, lease.is_free)  # COLLECTIVE
    if not free:
        message(f"{folder} is leased to a job that may have ended: watching it for {STALE_SECONDS:g} s")
    while not free:
        free = on_root(communicator, lease.is_free)  # COLLECTIVE
    on_root(communicator, lease.acquire)  # COLLECTIVE
    store = CheckpointStore(folder, keep, lease.check)
    segments = SegmentWriter(store.replay_folder, rank, size)
    return CheckpointSession(communicator, watchdog, store, lease, segments, metrics)
