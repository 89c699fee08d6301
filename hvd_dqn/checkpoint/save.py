"""Saving the job beside training: each rank's thread writes its own replay, rank 0's then the rest and the manifest.

Training goes on as soon as what changes has been copied. Collectives belong to the main thread, so the threads meet on
the disk: a rank leaves its part of the checkpoint in a file, and rank 0 waits for all of them.

    checkpoints/parts-<token>/rank-00001.json      gone once the manifest is written
"""

from __future__ import annotations

import json
import secrets
import threading

from hvd_dqn.checkpoint.files import remove_tree, write_bytes_atomically, write_json_atomically
from hvd_dqn.checkpoint.keepalive import patiently
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.storage import Location, ObjectPath
from hvd_dqn.checkpoint.store import Checkpoint
from hvd_dqn.checkpoint.writing import Writing
from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.errors import UserError
from hvd_dqn.learner.learner import state_of
from hvd_dqn.run.directory import METRICS_FILE
from hvd_dqn.training.job import Job
from hvd_dqn.transition import Transition

_PARTS = "parts-"
_LOOK_SECONDS = 0.02
_LOOK_SECONDS_IN_A_STORE = 0.2
_SECONDS_TO_FINISH = 20.0


def save(job: Job, score: float | None) -> None:
    """Begins a checkpoint, after the one before is done; a collective.

    Open episodes are marked as truncated: whoever goes on from here, this job or a resumed one, starts new ones.

    Args:
      job: the job.
      score: mean return of an evaluation made at this very step, or None.
    """
    settle_or_warn(job)  # COLLECTIVE
    job.watchdog.beat("beginning a checkpoint", allow=2.0)
    parts = job.store.folder / f"{_PARTS}{job.communicator.broadcast_json(secrets.token_hex(8))}"  # COLLECTIVE
    replay = job.replay
    oldest = replay.added - len(replay)
    first = max(job.segments.written, oldest)
    state = RankState(
        generators={name: generator.bit_generator.state for name, generator in job.generators.items()},
        added=replay.added,
        stored=len(replay),
        capacity=replay.capacity,
        segments=[],
        finished_episodes=list(job.finished_episodes),
    )
    job.writing = Writing(job.counters.env_steps)
    new = replay.newest(replay.added - first)
    job.writing.start("part", _write_part, job, parts, state, new, first, oldest)
    if job.communicator.rank == 0:
        checkpoint = Checkpoint(job.counters.env_steps, score, state_of(job.learner), job.shared_state(), [])
        job.writing.start("manifest", _write_checkpoint, job, parts, checkpoint, job.writing.given_up)


def settle_or_warn(job: Job) -> None:
    """Waits for the checkpoint under way and says why it failed, if it did; a collective."""
    try:
        settle(job)  # COLLECTIVE
    except UserError as error:
        job.display.warn(f"{error}; training goes on")


def settle(job: Job) -> None:
    """Waits until the checkpoint under way is written on all ranks; a collective.

    Raises:
      UserError: on all ranks, if it could not be written; earlier checkpoints stay good.
    """
    writing, job.writing = job.writing, None
    if writing is None:
        return
    doing = "writing a checkpoint"
    job.watchdog.beat(doing, allow=4.0)
    try:
        raise_on_any_rank(job.communicator, patiently(job, doing, lambda: writing.finish("part")))  # COLLECTIVE
        finish = (lambda: writing.finish("manifest")) if job.communicator.rank == 0 else lambda: None
        on_root(job.communicator, patiently(job, doing, finish))  # COLLECTIVE
    except UserError as error:
        raise UserError(f"the checkpoint at env step {writing.env_steps:,} could not be written: {error}") from None
    finally:
        writing.close()


def save_metrics(job: Job) -> None:
    """Lets the final evaluation outlive this machine, too; a collective. A store that is gone costs it, not the run."""
    try:
        on_root(job.communicator, patiently(job, "saving the metrics", lambda: _put_metrics(job)))  # COLLECTIVE
    except UserError as error:
        job.display.message(f"the last metrics could not be saved: {error}")


def abandon(job: Job, seconds: float = _SECONDS_TO_FINISH) -> None:
    """Lets this rank finish the checkpoint under way, but not wait long for a rank that may be lost; no collective."""
    if job.writing is not None:
        job.writing.close(seconds)


def _write_part(job: Job, parts: Location, state: RankState, new: Transition, first: int, oldest: int) -> None:
    """Writes this rank's new transitions, then what describes all that it holds."""
    state.segments.extend(job.segments.write(new, first, oldest))
    parts.mkdir(parents=True, exist_ok=True)
    write_json_atomically(_part(parts, job.communicator.rank), state.to_json())


def _write_checkpoint(job: Job, parts: Location, checkpoint: Checkpoint, given_up: threading.Event) -> None:
    """Waits for all ranks' parts, then writes rank 0's files and the manifest."""
    look_seconds = _LOOK_SECONDS_IN_A_STORE if isinstance(parts, ObjectPath) else _LOOK_SECONDS
    for rank in range(job.communicator.size):
        while not _part(parts, rank).exists():
            if given_up.wait(look_seconds):
                remove_tree(parts, ignore_errors=True)
                raise TimeoutError(f"rank {rank} has not written its part")
        checkpoint.ranks.append(RankState.from_json(json.loads(_part(parts, rank).read_bytes())))
    _put_metrics(job)
    job.store.save(checkpoint, job.learner.layout.views(checkpoint.learner["online"]))
    for old in job.store.folder.glob(f"{_PARTS}*"):  # of jobs that were killed, too
        remove_tree(old, ignore_errors=True)


def _put_metrics(job: Job) -> None:
    """Puts all lines that there are by now beside checkpoints elsewhere: a resume cuts those after its checkpoint."""
    if job.saves_elsewhere and job.communicator.rank == 0:
        write_bytes_atomically(job.store.folder / METRICS_FILE, job.directory.metrics.read_bytes())


def _part(parts: Location, rank: int) -> Location:
    return parts / f"rank-{rank:05d}.json"
