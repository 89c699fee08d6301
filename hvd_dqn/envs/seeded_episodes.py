"""A single environment whose every episode has a seed of its own, and which can continue a saved episode."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from hvd_dqn.envs.foreign import foreign
from hvd_dqn.envs.open_episode import OpenEpisode
from hvd_dqn.envs.saved_state import lasting_state, load_lasting_state, load_state, offers_state, save_state
from hvd_dqn.errors import UserError
from hvd_dqn.seeding import integer_seed


class Start(NamedTuple):
    """What an environment does at its next reset."""

    seed: int  # the run's
    env_index: int  # of the environment over all ranks
    number: int  # of the episode to begin
    episode: OpenEpisode | None = None  # the episode to continue instead


class SeededEpisodes(gym.Wrapper[Any, Any, Any, Any]):
    """Seeds episode n of environment i by (seed, i, n), however the reset comes about; the outermost wrapper.

    A vector environment resets its members itself where an episode ends, without a seed. The start is given by
    `vector_env.set_attr("next_start", starts)`; until then seeds pass through.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Wraps an environment."""
        super().__init__(env)
        self.next_start: Start | None = None
        self.saves_state = offers_state(env)
        """Whether `episode_state` gives the open episode's state; if not, its actions must be replayed."""
        self._origin: tuple[int, int] | None = None  # seed, env_index
        self._number = 0
        self._ended = False
        self._over = False
        self._lasting: list[dict[str, Any]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins the next episode with its own seed, or continues the one that `next_start` names."""
        start, self.next_start = self.next_start, None
        self._ended = self._over = False
        if start is not None:
            self._origin, self._number = (start.seed, start.env_index), start.number
            if start.episode is not None:
                return self._go_on(start.episode)
        elif self._origin is None:
            return self.env.reset(seed=seed, options=options)
        else:
            self._number += 1
        self._lasting = lasting_state(self.env)
        return self.env.reset(seed=self._episode_seed(), options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps; after a restored episode that had ended it resets, as the vector environment would have done."""
        if self._ended:
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        answer = self.env.step(action)
        self._over = answer[2] or answer[3]
        return answer

    def episode_state(self) -> dict[str, Any]:
        """Returns the state of the open episode.

        Raises:
          UserError: if the environment's state is not made of plain values and arrays.
        """
        with foreign(self._name, "get_state()"):
            return save_state(self.env)

    def lasting(self) -> list[dict[str, Any]]:
        """Returns the wrappers' running statistics, with which a replay of the open episode begins."""
        return lasting_state(self.env) if self._over else self._lasting

    def _go_on(self, episode: OpenEpisode) -> tuple[Any, dict[str, Any]]:
        self._number = episode.number
        self._ended = self._over = episode.ended
        load_lasting_state(self.env, episode.lasting or [])
        self._lasting = lasting_state(self.env)
        if episode.ended and episode.state is None:
            return episode.observation, {}
        observation, info = self.env.reset(seed=self._episode_seed())
        if episode.state is not None:
            with foreign(self._name, "set_state()"):
                load_state(self.env, episode.state)
            return episode.observation, info
        return self._replay(episode, observation, info)

    def _replay(self, episode: OpenEpisode, observation: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Takes the episode's actions again.

        Raises:
          UserError: if they lead anywhere else than they did.
        """
        assert episode.actions is not None
        total = 0.0
        for taken, action in enumerate(episode.actions.astype(np.int64), 1):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                raise self._not_deterministic(episode, f"the episode ends after {taken} of them")
        shown = np.asarray(np.asarray(observation, self.observation_space.dtype), episode.observation.dtype)
        if shown.shape != episode.observation.shape or shown.tobytes() != episode.observation.tobytes():
            raise self._not_deterministic(episode, f"the observation is {_brief(shown)}")
        if total != episode.episode_return:
            raise self._not_deterministic(episode, f"the return is {total}, not {episode.episode_return}")
        return observation, info

    def _not_deterministic(self, episode: OpenEpisode, difference: str) -> UserError:
        return UserError(
            f"{self._name} is not deterministic, or has been changed: with the {episode.length} "
            f"actions of its open episode {episode.number} and the same seed {difference}; saved was the observation "
            f"{_brief(episode.observation)}. --checkpoint-boundary reset starts new episodes at each checkpoint and "
            "whenever a run is resumed, so that none has to be replayed."
        )

    @property
    def _name(self) -> str:
        assert self._origin is not None
        return f"environment {self._origin[1]}"

    def _episode_seed(self) -> int:
        assert self._origin is not None
        seed, env_index = self._origin
        return integer_seed(seed, "environment", env_index, self._number)


def _brief(observation: np.ndarray) -> str:
    return f"{observation.ravel()[:8].tolist()}{' ...' if observation.size > 8 else ''}"
