"""Where a job's checkpoints lie, and that no other job writes there."""

from __future__ import annotations

from pathlib import Path

from hvd_dqn.checkpoint.lease import STALE_SECONDS, Lease, NoLease, RenewedLease
from hvd_dqn.checkpoint.storage import ObjectPath, open_location
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.run.progress import Display


def open_checkpoints(
    url: str, own: Path, keep: int, communicator: Communicator, display: Display
) -> tuple[CheckpointStore[Path] | CheckpointStore[ObjectPath], Lease]:
    """Opens the checkpoint store and takes its lease, unless it is the run directory. A collective.

    A lease that a killed job may have left is watched until it is known to be one.

    Args:
      url: the checkpoint path, or "" for the run directory.
      own: the folder of checkpoints in the run directory, which has a lock.
      keep: how many checkpoints to keep.
      communicator: the job's.
      display: rank 0's.

    Raises:
      UserError: on all ranks, if another job is there or nothing can be written.
    """
    if not url:
        return CheckpointStore(own, keep), NoLease()
    place = raise_on_any_rank(communicator, lambda: open_location(url, "--checkpoint-path"))  # COLLECTIVE
    display.message(f"checkpoints go to {place}")
    lease = RenewedLease(place)
    free = on_root(communicator, lease.is_free)  # COLLECTIVE
    if not free:
        display.message(f"{place} is leased by a job that may have ended: watching it for {STALE_SECONDS:g} s")
    while not free:
        free = on_root(communicator, lease.is_free)  # COLLECTIVE
    on_root(communicator, lease.acquire)  # COLLECTIVE
    return CheckpointStore(place, keep, lease.check), lease
