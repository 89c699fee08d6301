"""Evaluation of one rank's share of the episodes, greedy up to an epsilon. Each episode has its own seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from hvd_dqn.envs.life_losses import LIFE_LOST
from hvd_dqn.errors import UserError
from hvd_dqn.seeding import generator

EpisodeSeed = tuple[int, int]
"""An episode's global number and its seed."""


class Outcome(NamedTuple):
    """What an episode gave, and what the network had expected of it."""

    total: float
    """Sum of the environment's own rewards."""
    start_value: float
    """Value of the greedy action of the first observation."""
    discounted_return: float
    """What `start_value` estimates: the discounted sum of the rewards that are learned from, up to the end of the task,
    and the discounted value of the greedy action of the last observation where a time limit ended the episode."""


class GreedyEvaluation:
    """Plays a list of episodes greedily, several at a time, in time slices.

    The return of an episode depends only on the weights and its seed, so the result does not depend on how the episodes
    are split over the ranks. Between two time slices the ranks synchronise, so no rank waits long for another.
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env[Any, Any]],
        action_values: Callable[[np.ndarray], np.ndarray],
        observation_dtype: np.dtype,
        max_parallel: int = 16,
        step_limit: int = 0,
        epsilon: float = 0.0,
        gamma: float = 1.0,
        clip_rewards: bool = False,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Creates an evaluation without episodes.

        Args:
          make_env: creates one environment.
          action_values: maps observations [N, *observation_shape] to Q-values float32 [N, A] or [N, J, A].
          observation_dtype: the dtype that `action_values` expects.
          max_parallel: episodes played at the same time, as one batch for the network; fewer if no more environments
            can be made.
          step_limit: steps after which an episode is cut off, 0 for no limit.
          epsilon: probability of a random action.
          gamma: discount per env step, of `Outcome.discounted_return`.
          clip_rewards: whether rewards are clipped to -1..1 in it.
          warn: called with warnings.
        """
        self._make_env = make_env
        self._action_values = action_values
        self._dtype = observation_dtype
        self._max_parallel = max_parallel
        self._step_limit = step_limit
        self._epsilon = epsilon
        self._gamma, self._clip_rewards = gamma, clip_rewards
        self._warn = warn
        self._cut_off = 0
        self._idle_envs: list[gym.Env[Any, Any]] = []
        self._queued: list[EpisodeSeed] = []
        self._playing: list[_Episode] = []
        self._outcomes: dict[int, Outcome] = {}

    def begin(self, episodes: list[EpisodeSeed]) -> None:
        """Queues episodes and discards earlier results."""
        self._idle_envs += [play.env for play in self._playing]
        self._queued, self._playing, self._outcomes, self._cut_off = list(episodes), [], {}, 0

    def run(self, seconds: float) -> int:
        """Plays for about `seconds` and returns the number of unfinished episodes."""
        deadline = time.monotonic() + seconds
        while self._fill(deadline) and time.monotonic() < deadline:
            observations = np.stack([play.observation for play in self._playing]).astype(self._dtype)
            q = self._action_values(observations)  # [N, A] or [N, J, A]
            ended = []
            for play, action, q_one in zip(self._playing, q.argmax(axis=-1), q, strict=True):
                over = play.step(play.explore(action, q_one, self._epsilon) if self._epsilon > 0 else action)
                cut_off = not over and play.length == self._step_limit
                self._cut_off += cut_off
                if over or cut_off:
                    ended.append(play)
            self._finish(ended)
        return len(self._queued) + len(self._playing)

    def outcomes(self) -> dict[int, Outcome]:
        """Returns the outcomes of the finished episodes, by global episode number."""
        return dict(self._outcomes)

    @property
    def cut_off(self) -> int:
        """Returns how many episodes reached the step limit."""
        return self._cut_off

    def close(self) -> None:
        """Closes all environments."""
        for env in self._idle_envs + [play.env for play in self._playing]:
            env.close()
        self._idle_envs, self._playing = [], []

    def _finish(self, ended: list[_Episode]) -> None:
        """Takes the outcomes of episodes that have ended or were cut off."""
        for play in ended:
            if play.discount > 0:  # the task continues, as in training
                play.discounted_return += play.discount * self._value(play.observation)
            self._outcomes[play.number] = Outcome(play.total, play.start_value, play.discounted_return)
            self._idle_envs.append(play.env)
        self._playing = [play for play in self._playing if play.number not in self._outcomes]

    def _value(self, observation: np.ndarray) -> float:
        """Returns the greedy action's value of an observation, alone: in a batch its last bits depend on the others."""
        return float(greedy_values(self._action_values(np.asarray(observation)[None].astype(self._dtype)))[0])

    def _fill(self, deadline: float) -> bool:
        """Starts queued episodes up to the limit, at least one. Returns True if any episode is being played."""
        while self._queued and len(self._playing) < self._max_parallel:
            if self._playing and time.monotonic() > deadline:
                break
            env = self._idle_envs.pop() if self._idle_envs else self._made()
            if env is None:
                break
            play = _Episode(*self._queued.pop(0), env, self._gamma, self._clip_rewards)
            play.start_value = self._value(play.observation)
            self._playing.append(play)
        return bool(self._playing)

    def _made(self) -> gym.Env[Any, Any] | None:
        """Makes an environment; returns None if there can be no more of them than there are.

        Raises:
          UserError: if there can be none.
        """
        try:
            return self._make_env()
        except UserError as error:
            if not self._playing:
                raise UserError(
                    f"{error}\nIf this environment cannot exist twice at a time, --evaluation-period 0 leaves only the "
                    "final evaluation, before which the training environments are closed"
                ) from None
            self._max_parallel = len(self._playing)
            self._warn(f"evaluation continues with {self._max_parallel} environment(s) at a time: {error}")
            return None


def greedy_values(q: np.ndarray) -> np.ndarray:
    """Returns the greedy actions' values, float32 [N]: the greatest, or where there are joints the mean of theirs.

    Args:
      q: float32 [N, A] or [N, J, A], action values.
    """
    greatest: np.ndarray = q.max(axis=-1)  # [N] or [N, J]
    return greatest if q.ndim == 2 else greatest.mean(axis=1)


class _Episode:
    """One running episode."""

    def __init__(self, number: int, seed: int, env: gym.Env[Any, Any], gamma: float, clip_rewards: bool) -> None:
        self.number = number
        self.env = env
        self._gamma, self._clip_rewards = gamma, clip_rewards
        self.start_value = 0.0
        self.discounted_return = 0.0
        self.discount = 1.0  # of the next reward; 0 once the task has ended
        self.total = 0.0
        self.length = 0
        self.rng = generator(seed, "evaluation epsilon")
        self.observation, _ = env.reset(seed=seed)

    def explore(self, greedy: Any, q: np.ndarray, epsilon: float) -> Any:
        """Returns the greedy action, int64 [] or [J], each joint of it with probability epsilon replaced at random."""
        chosen = [
            self.rng.choice(np.flatnonzero(~np.isneginf(values))) if self.rng.random() < epsilon else best
            for best, values in zip(np.atleast_1d(greedy), np.atleast_2d(q), strict=True)
        ]
        return np.reshape(chosen, np.shape(greedy))[()]

    def step(self, action: Any) -> bool:
        """Steps once, by an action of the type that vector environments give. Returns True if the episode has ended."""
        self.observation, reward, terminated, truncated, info = self.env.step(action)
        self.total += float(reward)
        learned = min(1.0, max(-1.0, float(reward))) if self._clip_rewards else float(reward)
        self.discounted_return += self.discount * learned
        self.discount *= 0.0 if terminated or info.get(LIFE_LOST, False) else self._gamma
        self.length += 1
        return bool(terminated or truncated)
