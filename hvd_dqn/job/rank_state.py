"""What one rank alone adds to a checkpoint, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hvd_dqn.errors import CheckpointError
from hvd_dqn.job.segments import Segment


@dataclass(frozen=True)
class RankState:
    """One rank's part of the future."""

    generators: dict[str, Any]
    """The states of the rank's random generators by name."""
    added: int
    """Transitions ever added to the rank's replay."""
    stored: int
    """Transitions that it held: the newest ones in its segments."""
    capacity: int
    segments: list[Segment]
    """Oldest first; the first of them may begin with transitions that the replay had dropped already."""
    finished_episodes: list[Any]
    """Episodes since the last log line, as [env step, return, length]."""

    def to_json(self) -> dict[str, Any]:
        """Returns the state as JSON-ready values."""
        return {**vars(self), "segments": [segment.to_json() for segment in self.segments]}

    @classmethod
    def from_json(cls, record: Any) -> RankState:
        """Reads what `to_json` gave.

        Raises:
          CheckpointError: if it is nothing of the kind.
        """
        try:
            state = cls(**{**record, "segments": [Segment.from_json(part) for part in record["segments"]]})
            numbers = state.added, state.stored, state.capacity
            held = sum(segment.count for segment in state.segments)
            sound = all(type(n) is int for n in numbers) and 0 <= state.stored <= min(held, state.capacity, state.added)
        except (TypeError, KeyError) as error:
            raise CheckpointError(f"a rank's state cannot be read ({error!r})") from None
        if not sound:
            raise CheckpointError("a rank's state contradicts itself")
        return state
