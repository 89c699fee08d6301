"""Steps one rank's environments and returns what really happened as transitions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from hvd_dqn.envs.continuation import EpisodeSeeds, make_continuation
from hvd_dqn.envs.guard import autoreset_mode
from hvd_dqn.envs.life_losses import LIFE_LOST
from hvd_dqn.envs.n_step import NStep
from hvd_dqn.envs.open_episode import CollectorState, OpenEpisode
from hvd_dqn.envs.return_range import ReturnRange
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.transition import Transition


class Episode(NamedTuple):
    """A finished episode."""

    episode_return: float
    length: int


class Collector:
    """Keeps the current observation of E vectorised environments and turns steps into transitions.

    With Gymnasium's NEXT_STEP autoreset, the step after an episode's end only resets: its action is ignored and
    it is no transition, so it is never returned.
    """

    def __init__(
        self,
        vector_env: VectorEnv[Any, Any, Any],
        spaces: Spaces,
        gamma: float,
        seeds: EpisodeSeeds,
        *,
        n_step: int = 1,
        clip_rewards: bool = False,
        return_range: ReturnRange | None = None,
    ) -> None:
        """Takes the environments over; `reset` or `restore` must be called before `step`.

        Args:
          vector_env: made by `EnvironmentMaker.vector`; the members of a SyncVectorEnv or AsyncVectorEnv are
            SeededEpisodes.
          spaces: of one environment.
          gamma: discount of a step that does not end the task.
          seeds: where the episodes' seeds come from.
          n_step: steps of a transition.
          clip_rewards: whether transitions hold rewards clipped to -1..1. Episodes' returns do not.
          return_range: takes the rewards as they are learned from; None where it is not of interest.

        Raises:
          UserError: if the environment resets in a mode other than NEXT_STEP or SAME_STEP.
        """
        self._same_step = autoreset_mode(vector_env) == AutoresetMode.SAME_STEP
        self.num_envs: int = vector_env.num_envs
        self._vector_env = vector_env
        self._dtype = spaces.observation_dtype
        self._gamma = np.float32(gamma)
        self._shape = (self.num_envs, *spaces.observation_shape)
        self._clip_rewards, self._return_range = clip_rewards, return_range
        self._all = np.arange(self.num_envs)
        self._joins_steps = n_step > 1
        self._n_step = NStep(n_step, self.num_envs, spaces)
        self._continuation = make_continuation(vector_env, seeds, spaces.num_actions)
        self._closed = False
        self.observation = np.zeros(self._shape, self._dtype)

    def reset(self, first_number: int = 0) -> None:
        """Starts new episodes in all environments.

        Args:
          first_number: number of the new episodes. Episode n of global environment i has the seed of (seed, i, n); a
            native vector environment seeds its one generator by (seed, first global environment, first_number).
        """
        self.restore([None] * self.num_envs, None, first_number)

    def state(self) -> CollectorState:
        """Returns copies of what the open episodes need to continue in another process; nothing once they are closed.

        Raises:
          UserError: if an environment offers a state that is not made of plain values and arrays.
        """
        if self._closed:
            return CollectorState()
        saved, generator = self._continuation.save()
        episodes = [
            OpenEpisode(
                number=int(self._numbers[i]),
                episode_return=float(self._returns[i]),
                length=int(self._lengths[i]),
                ended=bool(self._resetting[i]),
                observation=self.observation[i].copy(),
                actions=None if self._resetting[i] else needed.actions,
                state=needed.state,
                lasting=needed.lasting,
                last_steps=self._n_step.window(i),
            )
            for i, needed in enumerate(saved)
        ]
        return CollectorState(episodes, generator)

    def restore(self, episodes: list[OpenEpisode | None], generator: Any, first_number: int) -> int:
        """Continues saved episodes, from their states or by replaying their actions.

        Args:
          episodes: one per environment; None begins a new one.
          generator: a native vector environment's, as saved; None seeds it as `reset` does.
          first_number: number of the new episodes.

        Returns:
          How many of the episodes continue. One that was saved by another kind of vector environment does not.

        Raises:
          UserError: if an environment is not deterministic, so that the actions lead elsewhere, or if an episode was
            saved with other transitions.
        """
        observation, continued = self._continuation.begin(episodes, generator, first_number)
        self.observation = np.array(observation, self._dtype)
        self._numbers = np.full(self.num_envs, first_number, np.int64)
        self._resetting = np.zeros(self.num_envs, np.bool_)
        self._returns = np.zeros(self.num_envs, np.float64)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._n_step.clear()
        if self._return_range:
            self._return_range.forget_open_episodes()
        for i, episode in enumerate(episodes):
            if episode is not None and continued[i]:
                self._numbers[i], self._resetting[i] = episode.number, episode.ended
                self._returns[i], self._lengths[i] = episode.episode_return, episode.length
                self._n_step.restore(i, episode.last_steps)
        return int(continued.sum())

    def step(self, actions: np.ndarray) -> tuple[Transition, list[Episode]]:
        """Takes one step in every environment.

        Args:
          actions: int [E].

        Returns:
          The transitions [N] that this step completes, and the episodes that ended in it. An environment that only
          reset itself completes none; with n-step transitions, one completes up to n where its episode ends.

        Raises:
          JobFault: if an environment breaks its contract or raises anything.
        """
        observation, reward, terminated, truncated, info = self._vector_env.step(actions)
        s_t = np.array(observation, self._dtype)  # a copy: the environments may write into the same buffer each step
        done = terminated | truncated
        lost = info.get(LIFE_LOST, False)  # the task ends with a life, and the episode continues
        begun = done if self._same_step else self._resetting
        anything_begun = bool(begun.any())
        self._continuation.record(actions, begun if anything_begun else None)
        transition = Transition(
            s_tm1=self.observation,
            a_tm1=actions.astype(np.int32),
            r_t=(np.clip(reward, -1.0, 1.0) if self._clip_rewards else reward).astype(np.float32),
            discount_t=self._gamma * ~(terminated | lost),
            s_t=self._with_final_observations(s_t, done, info) if self._same_step else s_t,
        )
        if anything_begun:
            self._numbers += begun
        acted = self._all
        if anything_begun and not self._same_step:
            acted = np.flatnonzero(~self._resetting)
            transition = Transition(*(column.take(acted, axis=0) for column in transition))
            reward = np.where(self._resetting, 0.0, reward)
            self._lengths -= self._resetting
        if self._return_range:
            self._return_range.add(transition.r_t, acted, (done | lost)[acted])
        if self._joins_steps:
            transition = self._n_step.add(transition, acted, done[acted])
        self._returns += reward
        self._lengths += 1
        episodes = self._finished_episodes(done)
        self.observation = s_t
        if not self._same_step:
            self._resetting = done
        return transition, episodes

    def cut(self) -> Transition:
        """Returns the transitions [N] that have not reached their n steps, as if all episodes were truncated here."""
        return self._n_step.cut(self.observation)

    def close(self) -> None:
        """Closes the environments."""
        self._closed = True
        self._vector_env.close()

    def _finished_episodes(self, done: np.ndarray) -> list[Episode]:
        ended = np.flatnonzero(done)
        episodes = [Episode(float(self._returns[i]), int(self._lengths[i])) for i in ended]
        self._returns[ended] = 0.0
        self._lengths[ended] = 0
        return episodes

    def _with_final_observations(self, s_t: np.ndarray, done: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Puts the last observation of each ended episode in place of the next episode's first one."""
        if not done.any():
            return s_t
        s_t = s_t.copy()
        for i in np.flatnonzero(done):
            s_t[i] = info["final_obs"][i]
        return s_t
