"""The ranks of an elastic job after a rendezvous: who they are, and what each of them holds."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.elastic.state import SurvivorState
from hvd_dqn.errors import EXIT_USER_ERROR, UserError
from hvd_dqn.run.directory import RunDirectory
from hvd_dqn.run.stopping import StopRequest


@dataclass(frozen=True)
class Membership:
    """What the ranks gathered at their last rendezvous, equal on all ranks."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    """One per rank, in their order."""

    @property
    def names(self) -> list[str]:
        """Returns the ranks' names."""
        return [part["name"] for part in self.parts]

    @property
    def source(self) -> int | None:
        """Returns the rank whose snapshot is restored: the first with the newest one; None where there is none."""
        snapshots = {rank: part["snapshot"] for rank, part in enumerate(self.parts) if part["snapshot"]}
        return max(snapshots, key=lambda rank: (snapshots[rank], -rank)) if snapshots else None

    @property
    def before(self) -> list[str]:
        """Returns the names of the ranks before the change."""
        return max((part["before"] for part in self.parts), key=len)

    @property
    def stored(self) -> list[int]:
        """Returns how many transitions each rank holds."""
        return [part["stored"] for part in self.parts]


def rendezvous(name: str, communicator: Communicator, state: SurvivorState, stop: StopRequest) -> Membership:
    """Gathers what each rank holds; a collective.

    Args:
      name: this rank's.
      communicator: the job's.
      state: what this rank has kept; run directory and generation become the same on all ranks.
      stop: its clock becomes that of the rank that has run for longest.
    """
    directory, snapshot = state.handle.directory, state.snapshot
    own = {
        "name": name,
        "generation": state.generation,
        "snapshot": [snapshot.generation, snapshot.env_steps] if snapshot else None,
        "stored": len(state.replay) if state.replay is not None else 0,
        "directory": str(directory.path) if directory else None,
        "before": state.members,
        "reached": state.reached,
        "running_for": time.monotonic() - stop.started,
    }
    membership = Membership(communicator.gather_json(own))  # COLLECTIVE
    stop.started = time.monotonic() - max(part["running_for"] for part in membership.parts)
    state.generation = max(part["generation"] for part in membership.parts)
    directories = [part["directory"] for part in membership.parts if part["directory"]]
    if directories:
        state.handle.directory = RunDirectory(Path(directories[0]))
    return membership


def reject_newcomers(membership: Membership, state: SurvivorState, error: UserError) -> bool:
    """Rejects newcomers that cannot join (wrong program, too many), so that the job continues without them.

    Args:
      membership: the ranks that could not assemble a job.
      state: what this rank has kept; a newcomer does not return from here.
      error: why they could not, equal on all ranks.

    Returns:
      Whether there were any.
    """
    if membership.source is None or all(part["snapshot"] for part in membership.parts):
        return False
    if state.snapshot is None:
        print(f"train.py: {error}; this new rank exits", file=sys.stderr, flush=True)
        os._exit(EXIT_USER_ERROR)
    return True
