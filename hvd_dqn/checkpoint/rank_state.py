"""One rank's own part of a checkpoint, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hvd_dqn.checkpoint.segments import Segment
from hvd_dqn.counters import LARGEST
from hvd_dqn.envs.open_episode import CollectorState
from hvd_dqn.errors import CheckpointError
from hvd_dqn.packing import pack, unpack


@dataclass(frozen=True)
class RankState:
    """The state of one rank that its future steps depend on."""

    generators: dict[str, Any]
    """States of the rank's random generators, by name."""
    added: int
    """Transitions added to the rank's replay since it began."""
    stored: int
    """Transitions in the replay: the newest ones of its segments."""
    capacity: int
    segments: list[Segment]
    """Oldest first. The first may begin with transitions that the replay has already overwritten."""
    finished_episodes: list[Any]
    """Episodes since the last log line, as [env step, return, length]."""
    open_episodes: CollectorState | None
    """Of this rank's environments; None where a checkpoint ends all episodes."""
    replay_state: dict[str, np.ndarray] = field(default_factory=dict)
    """The replay's arrays other than transitions, such as priorities, by name: a row per stored transition."""

    def to_json(self) -> dict[str, Any]:
        """Returns the state as JSON-ready values."""
        return {
            **vars(self),
            "segments": [segment.to_json() for segment in self.segments],
            "open_episodes": None if self.open_episodes is None else self.open_episodes.to_json(),
            "replay_state": pack(self.replay_state),
        }

    @classmethod
    def from_json(cls, record: Any) -> RankState:
        """Parses the result of `to_json`.

        Raises:
          CheckpointError: if the record is malformed.
        """
        try:
            segments = [Segment.from_json(part) for part in record["segments"]]
            episodes = None if record["open_episodes"] is None else CollectorState.from_json(record["open_episodes"])
            replay_state = unpack(record["replay_state"])
            others = {"segments": segments, "open_episodes": episodes, "replay_state": replay_state}
            state = cls(**{**record, **others})
            numbers = state.added, state.stored, state.capacity
            held = sum(segment.count for segment in state.segments)
            sound = (
                all(type(n) is int for n in numbers)
                and 0 <= state.stored <= min(held, state.capacity, state.added)
                and max(numbers) <= LARGEST
                and all(segment.count <= state.capacity for segment in state.segments)
                and all(type(value) is dict for value in state.generators.values())
                and all(_is_episode(episode) for episode in state.finished_episodes)
                and all(_has_rows(array, state.stored) for array in state.replay_state.values())
            )
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise CheckpointError(f"a rank's state cannot be read ({repr(error)[:300]})") from None
        if not sound:
            raise CheckpointError("a rank's state is inconsistent")
        return state

    def without(self, lost: set[str]) -> RankState:
        """Returns the state without the transitions of the lost segment files."""
        oldest = self.added - self.stored
        segments = [segment for segment in self.segments if segment.file not in lost]
        ends = [(segment.first - oldest, segment.first + segment.count - oldest) for segment in segments]
        rows = [slice(max(0, start), max(0, end)) for start, end in ends]
        stored = sum(part.stop - part.start for part in rows)
        replay_state = {
            name: np.concatenate([array[:0], *(array[part] for part in rows)])
            for name, array in self.replay_state.items()
        }
        return replace(self, segments=segments, stored=min(self.stored, stored), replay_state=replay_state)


def _has_rows(array: Any, count: int) -> bool:
    return isinstance(array, np.ndarray) and array.ndim > 0 and len(array) == count


def _is_episode(episode: Any) -> bool:
    return type(episode) is list and len(episode) == 3 and all(type(number) in (int, float) for number in episode)
