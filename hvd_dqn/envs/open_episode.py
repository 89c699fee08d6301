"""An open episode of one environment as plain values: what a checkpoint keeps of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hvd_dqn.errors import CheckpointError
from hvd_dqn.packing import pack, unpack


@dataclass(frozen=True)
class OpenEpisode:
    """How far one environment has come in its present episode.

    It continues from `state` where there is one, else by replaying `actions`. An ended episode needs neither: the next
    step begins another one.
    """

    number: int
    """Of the episode in its environment; addresses its seed."""
    episode_return: float
    """Sum of the rewards so far."""
    length: int
    """Steps so far."""
    ended: bool
    """Whether the next step only resets the environment."""
    observation: np.ndarray
    """The present one, as the policy sees it."""
    actions: np.ndarray | None = None
    """Integer [T] or [T, J]: every action since the reset."""
    state: Any = None
    """What the environment or the vector environment gave: plain values and arrays (packing.py)."""
    lasting: Any = None
    """What wrappers keep from one episode to the next, such as running means, as of this episode's reset or end."""
    last_steps: Any = None
    """The last steps, from which n-step transitions still have to end: arrays by column; None if there are none."""

    def to_json(self) -> dict[str, Any]:
        """Returns the episode as JSON-ready values."""
        return {**vars(self), **{name: pack(getattr(self, name)) for name in _PACKED}}

    @classmethod
    def from_json(cls, record: Any) -> OpenEpisode:
        """Reads what `to_json` gave.

        Raises:
          CheckpointError: if it is nothing of the kind.
        """
        try:
            episode = cls(**{**record, **{name: unpack(record.get(name)) for name in _PACKED}})
            observation, actions = np.asarray(episode.observation), episode.actions
            sound = (
                all(type(number) is int and number >= 0 for number in (episode.number, episode.length))
                and type(episode.episode_return) in (int, float)
                and type(episode.ended) is bool
                and observation.dtype.kind in "biuf"
                and (episode.lasting is None or all(isinstance(own, dict) for own in episode.lasting))
                and (actions is None or (isinstance(actions, np.ndarray) and _fits(actions, episode.length)))
            )
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"an open episode cannot be read ({repr(error)[:300]})") from None
        if not sound:
            raise CheckpointError("an open episode contradicts itself")
        return replace(episode, observation=observation)


_PACKED = ("observation", "actions", "state", "lasting", "last_steps")


def _fits(actions: np.ndarray, length: int) -> bool:
    return actions.dtype.kind in "iu" and actions.ndim >= 1 and len(actions) == length


@dataclass(frozen=True)
class CollectorState:
    """The open episodes of one rank's environments."""

    episodes: list[OpenEpisode] = field(default_factory=list)
    """One per environment in their order; none where the environments cannot save them."""
    generator: Any = None
    """State of the random generator that a native vector environment's members share."""

    def to_json(self) -> dict[str, Any]:
        """Returns the state as JSON-ready values."""
        return {"episodes": [episode.to_json() for episode in self.episodes], "generator": pack(self.generator)}

    @classmethod
    def from_json(cls, record: Any) -> CollectorState:
        """Reads what `to_json` gave.

        Raises:
          CheckpointError: if it is nothing of the kind.
        """
        try:
            episodes = [OpenEpisode.from_json(episode) for episode in record["episodes"]]
            return cls(episodes, unpack(record["generator"]))
        except (TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"the open episodes cannot be read ({repr(error)[:300]})") from None
