"""Reads checkpoints back: the replay of each rank, the state that all ranks share, the best weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.reshard import SavedPart, read_share
from hvd_dqn.checkpoint.segments import Segment, read
from hvd_dqn.checkpoint.session import CheckpointSession
from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.learner.learner import Vector
from hvd_dqn.replay.base import Columns, Refill, Replay, empty_columns
from hvd_dqn.replay.rows import Rows
from hvd_dqn.transition import Transition

_DOING = "reading the replay"


class RestoredRanks(NamedTuple):
    """What has become of the ranks' own states."""

    finished_episodes: list[Any]
    """This rank's, since the last log line."""
    resharded: bool
    """Whether the replay was resharded; random generators are then not restored. Equal on all ranks."""
    stored: list[int]
    """Transitions that each rank holds now, where the replay was resharded."""
    damaged: dict[str, str]
    """Segments that cannot be used, as a message by file, equal on all ranks. If there are any, nothing is restored."""


def restore_ranks(
    session: CheckpointSession,
    ranks: list[RankState],
    whole: bool,
    *,
    replay: Replay,
    generators: Mapping[str, np.random.Generator],
) -> RestoredRanks:
    """Gives each rank its own state back; a collective.

    The replay is resharded where the number of ranks or their capacities differ, or where transitions are missing.

    Args:
      session: this rank's.
      ranks: what each rank saved.
      whole: whether all transitions are there.
      replay: takes this rank's transitions.
      generators: this rank's random generators by name; they take their states where nothing is resharded.

    Raises:
      UserError: on all ranks, if a state or a segment cannot be used.
    """
    communicator, own = session.communicator, session.communicator.rank
    fits = whole and len(ranks) == communicator.size and ranks[own].capacity == replay.capacity
    exact = communicator.sum(np.array([float(fits)]))[0] == communicator.size  # COLLECTIVE
    damaged: dict[str, str] = {}
    refill = Refill(replay)

    if exact:
        parts = (_read_held(session, held, replay.empty(), damaged) for held in _held_by(ranks[own]))
        look = session.with_keepalive(_DOING, lambda: _fill(ranks[own], parts, replay))  # COLLECTIVE
        raise_on_any_rank(communicator, look)  # COLLECTIVE
    else:
        _reshard(session, ranks, replay, refill, damaged)  # COLLECTIVE
    for part in communicator.gather_json(damaged):  # COLLECTIVE
        damaged |= part
    if damaged:
        return RestoredRanks([], not exact, [], damaged)
    if exact:
        session.segments.adopt(ranks[own].segments)
        raise_on_any_rank(communicator, lambda: _restore_generators(generators, ranks[own]))  # COLLECTIVE
        return RestoredRanks(ranks[own].finished_episodes, False, [], {})
    raise_on_any_rank(communicator, refill.finish)  # COLLECTIVE
    episodes = [episode for state in ranks for episode in state.finished_episodes] if own == 0 else []
    return RestoredRanks(episodes, True, communicator.gather_json(len(replay)), {})  # COLLECTIVE


def best_parameters(
    session: CheckpointSession, present: Vector, warn: Callable[[str], None]
) -> tuple[int | None, Vector]:
    """Returns the best checkpoint's env steps and online parameters [P] on all ranks; a collective.

    Args:
      session: this rank's.
      present: the learner's parameters, returned with None where no checkpoint has a score.
      warn: reports a better checkpoint that cannot be used.
    """
    best: list[np.ndarray] = []

    def find() -> int | None:
        checkpoint, passed_over = session.store.best()
        for line in passed_over:
            warn(line)
        if checkpoint is not None:
            best.append(checkpoint.learner["online"])
        return checkpoint.env_steps if checkpoint else None

    action = find if session.communicator.rank == 0 else lambda: None
    env_steps = on_root(
        session.communicator, session.with_keepalive("reading the best checkpoint", action)
    )  # COLLECTIVE
    return env_steps, session.communicator.broadcast(best[0] if best else present)  # COLLECTIVE


def _restore_generators(generators: Mapping[str, np.random.Generator], state: RankState) -> None:
    """Puts random generators back.

    Raises:
      UserError: if the state is not one of such generators.
    """
    try:
        for name, generator in generators.items():
            generator.bit_generator.state = state.generators[name]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"the checkpoint's generators cannot be used ({repr(error)[:300]})") from None


def _fill(state: RankState, parts: Iterable[Rows], replay: Replay) -> None:
    """Puts the transitions that a rank held into its replay, one part at a time."""
    replay.restore(replay.empty(), state.added - state.stored)
    for part in parts:
        replay.add(part.whole())
    if state.replay_state.keys() == replay.extra_state().keys() and replay.added == state.added:
        replay.load_extra_state(state.replay_state)


def _reshard(
    session: CheckpointSession, ranks: list[RankState], replay: Replay, refill: Refill, damaged: dict[str, str]
) -> None:
    """Fills a replay with this rank's share of what all ranks saved; a collective. Each segment is read by one rank.

    Args:
      session: this rank's.
      ranks: what each rank saved.
      replay: shows the form of the transitions.
      refill: fills the replay; it is not finished here.
      damaged: takes the segments that this rank cannot use, which are left out.

    Raises:
      UserError: on all ranks, if a segment cannot be read.
    """
    communicator, names = session.communicator, list(replay.extra_state())
    known = all(sorted(state.replay_state) == sorted(names) for state in ranks)  # else another replay's
    saved = [(number, state, held) for number, state in enumerate(ranks) for held in _held_by(state)]
    nothing = empty_columns(replay) if known else list(replay.empty())

    def columns(index: int) -> Columns:
        if index >= len(saved):
            return nothing
        _, state, held = saved[index]
        part = _read_held(session, held, replay.empty(), damaged)
        rows = slice(held.start, held.start + len(part))
        return [*part.whole(), *(state.replay_state[name][rows] for name in names if known)]

    def read_on_all(index: int) -> Columns:
        look = session.with_keepalive(_DOING, lambda: columns(index))  # COLLECTIVE
        taken: Columns = raise_on_any_rank(communicator, look)  # COLLECTIVE
        return taken

    read_share(
        [
            SavedPart(number, held.segment.count - held.skipped, state.stored - 1 - held.start)
            for number, state, held in saved
        ],
        read_on_all,
        nothing,
        refill,
        rank=communicator.rank,
        size=communicator.size,
        exchange=communicator.exchange,
        beat=lambda: session.watchdog.beat(_DOING),
    )  # COLLECTIVE


class _Held(NamedTuple):
    """A segment, and which of its transitions a rank's replay held."""

    segment: Segment
    skipped: int
    """Its first transitions, which the replay had overwritten."""
    start: int
    """Place of the first of the others in the replay; 0 is the oldest."""


def _held_by(state: RankState) -> list[_Held]:
    """Returns the segments of a rank's replay, oldest first."""
    overwritten, start = sum(segment.count for segment in state.segments) - state.stored, 0
    parts = []
    for segment in state.segments:
        skipped = min(overwritten, segment.count)
        parts.append(_Held(segment, skipped, start))
        overwritten -= skipped
        start += segment.count - skipped
    return parts


def _read_held(session: CheckpointSession, held: _Held, like: Transition, damaged: dict[str, str]) -> Rows:
    """Reads the transitions of a segment that a rank's replay held.

    Args:
      session: this rank's.
      held: the segment.
      like: columns of no rows, with the row shapes and dtypes; returned if the segment cannot be used.
      damaged: takes the segment then, with a message by file.
    """
    try:
        part = read(session.store.replay_folder, held.segment, like)
    except CheckpointError as error:
        damaged[held.segment.file] = str(error)
        return Rows(like)
    return part.part(slice(held.skipped, None)) if held.skipped else part
