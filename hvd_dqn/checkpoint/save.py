"""Saves the job while training continues: each rank's thread writes its replay, rank 0's then the rest.

Training continues as soon as the changing state has been copied. Collectives belong to the main thread, so the threads
synchronise through files: each rank writes its part of the checkpoint to a file, and rank 0 waits for all parts.

    checkpoints/parts-<token>/rank-00001.json      removed once the manifest is written
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hvd_dqn.checkpoint.contents import Checkpoint
from hvd_dqn.checkpoint.files import list_files, read_bytes, remove, write_bytes, write_json
from hvd_dqn.checkpoint.keepalive import with_keepalive
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.segments import PIECE_BYTES
from hvd_dqn.checkpoint.session import CheckpointSession
from hvd_dqn.checkpoint.storage import Location, ObjectPath
from hvd_dqn.checkpoint.writing import Writing
from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.envs.open_episode import CollectorState
from hvd_dqn.errors import StoreError, UserError
from hvd_dqn.files import METRICS_BYTES, parse_json, read_file
from hvd_dqn.replay.base import Replay
from hvd_dqn.replay.rows import Rows

MOST_COPIED_BYTES = 2**30
"""The most bytes of transitions that are copied, to be written while training continues."""
_PARTS = "parts-"
_PART_BYTES = 2**31
_POLL_SECONDS = 0.02
_POLL_SECONDS_IN_A_STORE = 0.2
_UNSEEN_SECONDS = 90.0
"""How long a network file system may hide a file that another host has written: its cache of a folder's names."""
SECONDS_TO_FINISH = 20.0
"""How long a rank that exits waits for the checkpoint in progress."""

Weights = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Returns the online network's weights by layer from its flat vector [P]."""


def begin(
    session: CheckpointSession,
    env_steps: int,
    checkpoint: Callable[[], Checkpoint],
    weights: Weights,
    *,
    replay: Replay,
    generators: Mapping[str, np.random.Generator],
    finished_episodes: list[Any],
    open_episodes: CollectorState | None,
) -> None:
    """Begins to write a checkpoint; a collective. The one before must be settled.

    Args:
      session: this rank's.
      env_steps: of the checkpoint.
      checkpoint: copies what all ranks share, without the ranks' own states; called on rank 0 alone.
      weights: lays the online network's vector out by layer.
      replay: this rank's.
      generators: this rank's random generators by name.
      finished_episodes: this rank's episodes since the last log line.
      open_episodes: of this rank's environments; None where a checkpoint ends all episodes.
    """
    session.watchdog.beat("beginning a checkpoint", allow=2.0)
    parts = session.store.folder / f"{_PARTS}{session.communicator.broadcast_json(secrets.token_hex(8))}"  # COLLECTIVE
    oldest = replay.added - len(replay)
    first, failure = _write_excess(session, replay, oldest)  # COLLECTIVE
    state = RankState(
        generators={name: generator.bit_generator.state for name, generator in generators.items()},
        added=replay.added,
        stored=len(replay),
        capacity=replay.capacity,
        segments=[],
        finished_episodes=list(finished_episodes),
        open_episodes=open_episodes,
        replay_state=replay.extra_state(),
    )
    session.writing, session.begun_at = Writing(env_steps, session.communicator.size), env_steps
    new = replay.rows(np.arange(first, replay.added))
    session.writing.start(
        "part", _write_part, session, _part(parts, session.communicator.rank), state, new, first, oldest, failure
    )
    if session.communicator.rank == 0:
        session.writing.start("manifest", _write_checkpoint, session, session.writing, parts, checkpoint(), weights)


def settle_or_warn(session: CheckpointSession, warn: Callable[[str], None]) -> None:
    """Waits for the checkpoint in progress and reports why it failed, if it did; a collective."""
    try:
        settle(session)  # COLLECTIVE
    except UserError as error:
        warn(f"{error}; training continues")


def settle(session: CheckpointSession) -> None:
    """Waits until the checkpoint in progress is written on all ranks; a collective.

    Raises:
      UserError: on all ranks, if it could not be written; earlier checkpoints stay good.
    """
    writing, session.writing = session.writing, None
    if writing is None:
        return
    doing = "writing a checkpoint"
    session.watchdog.beat(doing, allow=4.0)
    finish = (lambda: writing.finish("manifest")) if session.communicator.rank == 0 else lambda: None
    try:
        written = session.with_keepalive(doing, lambda: writing.finish("part"))  # COLLECTIVE
        raise_on_any_rank(session.communicator, written)  # COLLECTIVE
        writing.rank_lost = session.communicator.size < writing.ranks
        writing.parts_written.set()
        on_root(session.communicator, session.with_keepalive(doing, finish))  # COLLECTIVE
    except UserError as error:
        raise UserError(f"the checkpoint at env step {writing.env_steps:,} could not be written: {error}") from None
    finally:
        writing.close()


def copy_metrics(session: CheckpointSession, warn: Callable[[str], None]) -> None:
    """Copies the metrics to checkpoints outside the run directory; a collective. A failure is only reported."""
    if not session.outside_run_directory:
        return
    action = (lambda: _copy_metrics(session)) if session.communicator.rank == 0 else lambda: None
    try:
        on_root(session.communicator, session.with_keepalive("saving the metrics", action))  # COLLECTIVE
    except UserError as error:
        warn(f"the last metrics could not be saved: {error}")


def abandon(session: CheckpointSession, seconds: float = SECONDS_TO_FINISH) -> None:
    """Gives this rank some time to finish the checkpoint in progress, then gives it up and ends the lease.

    No collective: other ranks may be lost.
    """
    if session.writing is not None:
        session.writing.close(seconds)
    session.lease.release()


def _write_excess(session: CheckpointSession, replay: Replay, oldest: int) -> tuple[int, OSError | UserError | None]:
    """Writes the oldest new transitions piece by piece where a copy of all new ones would be too large; a collective.

    Training continues only afterwards. A first save of a large replay, or one after a reshard, has so many.

    Returns:
      The number of the first transition that is left, and why the others could not be written, if so.
    """
    first = max(session.segments.written, oldest)
    stored_bytes = -(-replay.nbytes // replay.capacity)
    piece = max(1, PIECE_BYTES // Rows(replay.empty()).row_bytes)

    def write() -> int:
        left = first
        while (replay.added - left) * stored_bytes > MOST_COPIED_BYTES:
            session.segments.write(replay.rows(np.arange(left, left + piece)), left, oldest)
            left += piece
        return left

    try:
        look = with_keepalive(session.communicator, session.watchdog, "saving a large replay", write)  # COLLECTIVE
        return look(), None
    except (OSError, UserError) as error:
        return replay.added, error


def _write_part(
    session: CheckpointSession,
    part: Location,
    state: RankState,
    new: Rows,
    first: int,
    oldest: int,
    failure: OSError | UserError | None,
) -> None:
    """Writes this rank's new transitions, then the description of all that it holds."""
    if failure is not None:
        raise failure
    state.segments.extend(session.segments.write(new, first, oldest))
    write_json(part, state.to_json())


def _write_checkpoint(
    session: CheckpointSession, writing: Writing, parts: Location, checkpoint: Checkpoint, weights: Weights
) -> None:
    """Waits for all ranks' parts, then writes rank 0's files and the manifest."""
    for rank in range(writing.ranks):
        content = _wait_for_part(writing, parts, rank)
        checkpoint.ranks.append(RankState.from_json(parse_json(content)))
    _copy_metrics(session)
    session.store.save(checkpoint, weights(checkpoint.learner["online"]))
    for name in {name.partition("/")[0] for name in list_files(session.store.folder)}:
        if name.startswith(_PARTS):  # of jobs that were killed, too
            with contextlib.suppress(OSError, StoreError):
                remove(session.store.folder / name)


def _copy_metrics(session: CheckpointSession) -> None:
    """Copies all lines written so far: a resume removes those after its checkpoint."""
    if session.metrics is not None:
        write_bytes(session.store.folder / session.metrics.name, read_file(session.metrics, METRICS_BYTES))


def _wait_for_part(writing: Writing, parts: Location, rank: int) -> bytes:
    """Returns the content of a rank's part once it is there.

    Raises:
      TimeoutError: if the job gives the checkpoint up.
      FileNotFoundError: if the part was written and has been removed since.
    """
    poll_seconds = _POLL_SECONDS_IN_A_STORE if isinstance(parts, ObjectPath) else _POLL_SECONDS
    written_at: float | None = None
    while (content := _read_part(parts, rank)) is None:
        hidden_seconds = _UNSEEN_SECONDS if rank and not writing.rank_lost else 0.0
        if written_at is not None and time.monotonic() > written_at + hidden_seconds:
            if writing.rank_lost:
                raise FileNotFoundError("a rank was lost before it had written its part")
            raise FileNotFoundError(f"rank {rank}'s part was removed before the checkpoint was complete")
        if written_at is None and writing.parts_written.is_set():
            written_at = time.monotonic()
        if writing.given_up.wait(poll_seconds):
            with contextlib.suppress(OSError, StoreError):
                remove(parts)
            raise TimeoutError(f"rank {rank} has not written its part")
    return content


def _read_part(parts: Location, rank: int) -> bytes | None:
    try:
        return read_bytes(_part(parts, rank), _PART_BYTES)
    except FileNotFoundError:
        return None


def _part(parts: Location, rank: int) -> Location:
    return parts / f"rank-{rank:05d}.json"
