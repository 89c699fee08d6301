"""Reads checkpoints back: the replay of each rank, the state that all ranks share, the best weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.reshard import read_share
from hvd_dqn.checkpoint.segments import read
from hvd_dqn.checkpoint.session import CheckpointSession
from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.learner.learner import Vector
from hvd_dqn.replay.base import Replay, empty_columns, refill
from hvd_dqn.transition import Transition


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

    def fill() -> None:
        if exact:
            _fill(ranks[own], _read_replay(session, ranks[own], replay.empty(), damaged), replay)
            return
        extra = list(replay.extra_state())
        known = all(sorted(state.replay_state) == sorted(extra) for state in ranks)  # else another replay's
        readers = [
            (state.stored, partial(_with_extra, session, state, replay, damaged, extra if known else []))
            for state in ranks
        ]
        like = empty_columns(replay) if known else list(replay.empty())
        held = read_share(readers, like, own, communicator.size)
        if known:
            refill(replay, held, len(held[0]))
        else:
            replay.restore(Transition(*held), len(held[0]))

    look = session.with_keepalive("reading the replay", fill)  # COLLECTIVE
    raise_on_any_rank(communicator, look)  # COLLECTIVE
    for part in communicator.gather_json(damaged):  # COLLECTIVE
        damaged |= part
    if damaged:
        return RestoredRanks([], not exact, [], damaged)
    if exact:
        session.segments.adopt(ranks[own].segments)
        raise_on_any_rank(communicator, lambda: _restore_generators(generators, ranks[own]))  # COLLECTIVE
        return RestoredRanks(ranks[own].finished_episodes, False, [], {})
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


def _fill(state: RankState, parts: Iterable[Transition], replay: Replay) -> None:
    """Puts the transitions that a rank held into its replay, one part at a time."""
    replay.restore(replay.empty(), state.added - state.stored)
    for part in parts:
        replay.add(part)
    if state.replay_state.keys() == replay.extra_state().keys() and replay.added == state.added:
        replay.load_extra_state(state.replay_state)


def _with_extra(
    session: CheckpointSession, state: RankState, replay: Replay, damaged: dict[str, str], extra: list[str]
) -> Iterator[list[np.ndarray]]:
    """Reads the transitions that a rank held, see `_read_replay`, with the rows of some arrays of its replay's own."""
    start = 0
    for part in _read_replay(session, state, replay.empty(), damaged):
        end = start + len(part.a_tm1)
        yield [*part, *(state.replay_state[name][start:end] for name in extra)]
        start = end


def _read_replay(
    session: CheckpointSession, state: RankState, like: Transition, damaged: dict[str, str]
) -> Iterator[Transition]:
    """Reads the transitions that a rank held segment by segment, oldest first.

    Args:
      session: this rank's.
      state: the rank's.
      like: columns of any length, with the row shapes and dtypes.
      damaged: takes the segments that cannot be used, which are left out.
    """
    overwritten = sum(segment.count for segment in state.segments) - state.stored
    for segment in state.segments:
        try:
            part = read(session.store.replay_folder, segment, like)
            yield Transition(*(column[overwritten:] for column in part))
        except CheckpointError as error:
            damaged[segment.file] = str(error)
        overwritten = max(0, overwritten - segment.count)
