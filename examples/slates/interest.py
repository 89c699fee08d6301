"""Interest evolution (Ie et al. 2019): a user clicks an item of each slate, and what she watches changes her interests.

Written from section 6 of https://arxiv.org/abs/1905.12767. At every step ten candidates are drawn; the action is one of
the 120 sets of three of them. The user watches one item, or none, and her session ends when her time is used up. Better
items cost less of that time, and the user does not know their quality when she chooses.

The observation has the user's interests, and of every candidate its topic and quality. As in the paper it does not have
the time that is left. It ends in the response to the last slate, from which a learner sees the chosen item.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from session_picture import draw_session

TOPICS = 20
LOW_QUALITY_TOPICS = 14
LARGEST_QUALITY = 3.0
"""Mean quality of the best topic; that of the worst is its negative."""
QUALITY_DEVIATION = 0.1
"""Of an item's quality around its topic's mean. The paper gives no value; this is RecSim's."""
TIME = 200.0
"""Of a session."""
ITEM_LENGTH, NO_CLICK_TIME = 4.0, 0.5
"""Time that an item and a slate without a click take."""
BONUS = 0.9 / 3.4
"""Time that comes back for each unit of time watched and of quality."""
INTEREST_STEP = 0.3
"""y, the share of the distance to the extreme that a neutral interest moves."""
NULL_SCORE = 1.0
"""Of the null item, on the scale of interests. The paper gives no value; this is RecSim's."""
CANDIDATES, SLATE_SIZE, MOST_SLATES = 10, 3, 20_000


def topic_qualities() -> np.ndarray:
    """Returns the mean qualities of the topics, float64 [T]: 14 from -3 to 0, and 6 from 0 to 3 (section 6.1)."""
    low = np.linspace(-LARGEST_QUALITY, 0.0, LOW_QUALITY_TOPICS)
    return np.concatenate([low, np.linspace(0.0, LARGEST_QUALITY, TOPICS - LOW_QUALITY_TOPICS)])


def all_slates(candidates: int, slate_size: int) -> np.ndarray:
    """Returns the slates that can be shown, int64 [A, k]: numbers of candidates, ascending. Row a is action a.

    Args:
      candidates: m, items of which a slate is chosen.
      slate_size: k, items on a slate.

    Raises:
      ValueError: if there are too few candidates for a slate, or too many slates.
    """
    for name, value in (("candidates", candidates), ("slate_size", slate_size)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number from 1")
    if candidates < slate_size:
        raise ValueError(
            f"{candidates} candidates are too few for a slate of {slate_size}: give at least {slate_size} candidates, "
            "or a smaller slate_size"
        )
    if math.comb(candidates, slate_size) > MOST_SLATES:
        raise ValueError(
            f"{candidates} candidates have {math.comb(candidates, slate_size):,} slates of {slate_size}, more than "
            f"{MOST_SLATES:,} actions: give fewer candidates, or a smaller slate_size"
        )
    return np.array(list(itertools.combinations(range(candidates), slate_size)))


def choice_probabilities(interests: np.ndarray) -> np.ndarray:
    """Computes P(i | A) = exp(I(u, i)) / (exp(null) + sum_j exp(I(u, j))), the conditional logit (section 6.3).

    Args:
      interests: float64 [E, k], the user's interest in each item of the slate.

    Returns:
      float64 [E, k + 1]; the last column is the null item's, no click.
    """
    scores = np.exp(np.concatenate([interests, np.full((len(interests), 1), NULL_SCORE)], axis=1))  # [E, k + 1]
    return scores / scores.sum(axis=1, keepdims=True)


def changed_interest(interest: np.ndarray, increases: np.ndarray) -> np.ndarray:
    """Moves interests in a topic by y (1 - |I|) (1 - I), up or down (section 6.4).

    The paper prints -I in place of 1 - I, which would move a positive interest down where its text says up. The form
    here is RecSim's, and gives the published return of random slates.

    Args:
      interest: float64 [E], before the item was watched.
      increases: bool [E], true with the probability (I + 1) / 2.
    """
    step = INTEREST_STEP * (1.0 - np.abs(interest)) * (1.0 - interest)
    return np.clip(np.where(increases, interest + step, interest - step), -1.0, 1.0)


def time_change(watched: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Computes how watching an item changes the time left: minus its length, plus its bonus (section 6.4), [E]."""
    return watched * (BONUS * quality - 1.0)


class InterestEvolutionVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Sessions of several users, in arrays. A reward is the time for which an item was watched."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int = 1, candidates: int = CANDIDATES, slate_size: int = SLATE_SIZE) -> None:
        """Prepares the users; `reset` must be called first.

        Args:
          num_envs: E, users.
          candidates: m, items of which a slate is chosen.
          slate_size: k, items on a slate.

        Raises:
          ValueError: if there are too few candidates for a slate, or too many slates.
        """
        self.slates = all_slates(candidates, slate_size)  # [A, k]
        self.num_envs = num_envs
        numbers = TOPICS + candidates * (TOPICS + 1) + slate_size + 1
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (numbers,), np.float32)
        self.single_action_space = gym.spaces.Discrete(len(self.slates))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._users = np.arange(num_envs)
        self._means = topic_qualities()  # [T]
        self.interests = np.zeros((num_envs, TOPICS))  # [E, T]
        self.time_left = np.zeros(num_envs)  # [E]
        self.topics = np.zeros((num_envs, candidates), np.int64)  # [E, m]
        self.qualities = np.zeros((num_envs, candidates))  # [E, m]
        self.responses = np.zeros((num_envs, slate_size + 1), np.float32)  # [E, k + 1], 1 at the place clicked
        self._ended = np.zeros(num_envs, np.bool_)  # [E]

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins a session of a new user in every row."""
        super().reset(seed=seed)
        self._begin(self._users)
        self._draw_candidates()
        return self._observation(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Shows each user a slate; a user whose session has ended is replaced by a new one."""
        begins = self._ended
        slates = self.slates[actions]  # [E, k]
        slate_topics = np.take_along_axis(self.topics, slates, axis=1)  # [E, k]
        probabilities = choice_probabilities(np.take_along_axis(self.interests, slate_topics, axis=1))  # [E, k + 1]
        draws = self.np_random.random((2, self.num_envs))  # [2, E]
        places = (draws[0, :, None] >= probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)  # [E], k for no click
        clicks = (places < slates.shape[1]) & ~begins
        chosen = slates[self._users, np.minimum(places, slates.shape[1] - 1)]  # [E]
        watched = np.where(clicks, np.minimum(ITEM_LENGTH, self.time_left), 0.0)  # [E]
        self._consume(self.topics[self._users, chosen], clicks, draws[1])
        change = time_change(watched, self.qualities[self._users, chosen])  # [E]
        self.time_left += np.where(clicks, change, -NO_CLICK_TIME)
        self.responses[:] = 0.0
        self.responses[self._users, places] = 1.0
        self._begin(np.flatnonzero(begins))
        self._ended = self.time_left <= 0.0
        self._draw_candidates()
        return self._observation(), watched, self._ended.copy(), np.zeros_like(self._ended), {}

    def get_state(self) -> list[dict[str, Any]]:
        """Returns each user's session, without the random generator."""
        return [
            {name: np.array(getattr(self, name)[user]) for name in _STATE} | {"ended": bool(self._ended[user])}
            for user in self._users
        ]

    def set_state(self, states: list[dict[str, Any] | None]) -> None:
        """Puts back sessions of `get_state`; a user whose state is None keeps the present one."""
        for user, state in enumerate(states):
            if state is not None:
                for name in _STATE:
                    getattr(self, name)[user] = state[name]
                self._ended[user] = state["ended"]

    def get_action_meanings(self) -> list[str]:
        """Returns each slate as the numbers of its candidates, from 1."""
        return [" ".join(str(item + 1) for item in slate) for slate in self.slates]

    def _begin(self, users: np.ndarray) -> None:
        """Draws the interests of new users [N]."""
        self.interests[users] = self.np_random.uniform(-1.0, 1.0, (len(users), TOPICS))
        self.time_left[users] = TIME
        self.responses[users] = 0.0
        self._ended[users] = False

    def _consume(self, topics: np.ndarray, clicks: np.ndarray, draws: np.ndarray) -> None:
        """Changes the interests in the topics [E] of what was clicked."""
        before = self.interests[self._users, topics]  # [E]
        after = changed_interest(before, draws < (before + 1.0) / 2.0)  # [E]
        self.interests[self._users, topics] = np.where(clicks, after, before)

    def _draw_candidates(self) -> None:
        self.topics[:] = self.np_random.integers(TOPICS, size=self.topics.shape)
        self.qualities[:] = self.np_random.normal(self._means[self.topics], QUALITY_DEVIATION)

    def _observation(self) -> np.ndarray:
        """Returns float32 [E, T + m T + m + k + 1]: interests, topics (one-hot), qualities, response."""
        topics = np.eye(TOPICS, dtype=np.float32)[self.topics].reshape(self.num_envs, -1)  # [E, m T]
        parts = [self.interests, topics, self.qualities, self.responses]
        return np.concatenate(parts, axis=1, dtype=np.float32)


_STATE = ("interests", "time_left", "topics", "qualities", "responses")


class InterestEvolution(gym.Env[np.ndarray, np.int64]):
    """One user's session: a vector environment of one, with a picture."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self, candidates: int = CANDIDATES, slate_size: int = SLATE_SIZE, render_mode: str | None = None
    ) -> None:
        """Prepares the user; see `InterestEvolutionVector`."""
        self.users = InterestEvolutionVector(1, candidates, slate_size)
        self.observation_space = self.users.single_observation_space
        self.action_space = self.users.single_action_space
        self.render_mode = render_mode
        self._shown: tuple[np.ndarray, np.ndarray] | None = None  # topics and response of the last slate

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins a session of a new user."""
        super().reset(seed=seed)
        self.users.np_random = self.np_random
        self._shown = None
        observation, info = self.users.reset()
        return observation[0], info

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Shows the user a slate."""
        topics = self.users.topics[0, self.users.slates[action]]  # [k]
        observation, reward, terminated, _, info = self.users.step(np.array([action]))
        self._shown = topics, self.users.responses[0]
        return observation[0], float(reward[0]), bool(terminated[0]), False, info

    def render(self) -> np.ndarray:
        """Returns a picture of interests, the last slate and the time left, uint8 [H, W, 3]."""
        share = max(0.0, float(self.users.time_left[0]) / TIME)
        return draw_session(self.users.interests[0], topic_qualities() / LARGEST_QUALITY, self._shown, share)

    def get_state(self) -> dict[str, Any]:
        """Returns the session, without the random generator."""
        return self.users.get_state()[0]

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts back a session of `get_state`."""
        self.users.np_random = self.np_random
        self.users.set_state([state])

    def get_action_meanings(self) -> list[str]:
        """Returns each slate as the numbers of its candidates, from 1."""
        return self.users.get_action_meanings()


gym.register("InterestEvolution-v0", entry_point=InterestEvolution, vector_entry_point=InterestEvolutionVector)
