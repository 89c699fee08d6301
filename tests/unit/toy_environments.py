"""Real Gymnasium environments for the tests, well-behaved and broken ones."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode, VectorEnv


class Counting(gym.Env[np.ndarray, int]):
    """Observes [episode, step]; an episode ends after `length` steps, by `ending`; reward is 10 * episode + step.

    A `fault` happens at step `fault_at`: "nan-reward", "inf-observation", "shape" or "raise".
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length: int = 3, ending: str = "terminated", fault: str = "", fault_at: int = 0) -> None:
        self._length, self._ending = length, ending
        self._fault, self._fault_at = fault, fault_at
        self._episode, self._step, self._total = 0, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._episode += 1
        self._step = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        self._total += 1
        faulty = self._total == self._fault_at
        observation, reward = self._observation(), 10.0 * self._episode + self._step
        if faulty and self._fault == "raise":
            raise RuntimeError("the toy broke")
        if faulty and self._fault == "nan-reward":
            reward = float("nan")
        if faulty and self._fault == "inf-observation":
            observation[1] = np.inf
        if faulty and self._fault == "shape":
            observation = np.zeros(5, np.float32)
        done = self._step == self._length
        return observation, reward, done and self._ending == "terminated", done and self._ending == "truncated", {}

    def _observation(self) -> np.ndarray:
        return np.array([self._episode, self._step], np.float32)


class Wandering(gym.Env[np.ndarray, int]):
    """A noisy walk that is over when it leaves [-3, 3]. A subclass makes it easy or hard to save.

    `steps_taken` counts over all of its life and all environments of the process.
    """

    observation_space: gym.Space[Any] = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space: gym.Space[Any] = gym.spaces.Discrete(300)
    steps_taken = 0

    def __init__(self) -> None:
        self.place = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=2)
        return self.place.copy(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        type(self).steps_taken += 1
        self.place += self.np_random.normal(scale=0.2, size=2) + (action - 150) / 1000
        return self.place.copy(), float(self.place[0]), bool(np.abs(self.place).max() > 3.0), False, {}


class Resumable(Wandering):
    """Offers its state, and cannot be replayed: its noise depends on the steps of its whole life."""

    def __init__(self) -> None:
        super().__init__()
        self._life = 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._life += 1
        if self._life % 7 == 0:
            self.np_random.normal()
        return super().step(action)

    def get_state(self) -> Any:
        return {"place": self.place, "others": (self._life, [2.5, None, "three"], b"four", np.float32(5))}

    def set_state(self, state: Any) -> None:
        self._life, *others = state["others"]
        assert others == [[2.5, None, "three"], b"four", np.float32(5)]
        self.place = state["place"]


class Unsaveable(Wandering):
    """Offers a state that is not made of plain values."""

    def get_state(self) -> Any:
        return {"engine": [1, object()]}

    def set_state(self, state: Any) -> None:
        raise AssertionError("it could not be saved")


class Forgetful(Wandering):
    """Not deterministic: shows noise of its own from the second step on, or pays it. Or ends after six steps."""

    def __init__(self, kind: str = "observation") -> None:
        super().__init__()
        self._kind = kind
        self._own_noise = np.random.default_rng()
        self._age = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._age = 0
        return super().reset(seed=seed)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._age += 1
        observation, reward, terminated, truncated, info = super().step(action)
        noise = float(self._own_noise.normal()) * (self._age > 1)
        if self._kind == "observation":
            observation[1] += noise
        if self._kind == "reward":
            reward += noise
        if self._kind == "end":
            terminated |= self._age == 6
        return observation, reward, terminated, truncated, info


class BrokenVector(VectorEnv[Any, Any, Any]):
    """A native vector environment of three whose second member returns NaN at the fourth step."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, column: str) -> None:
        self.num_envs = 3
        self.single_observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self._column = column
        self._step = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros((3, 2), np.float32), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._step += 1
        observation, reward = np.zeros((3, 2), np.float32), np.ones(3)
        if self._step == 4 and self._column == "reward":
            reward[1] = np.nan
        if self._step == 4 and self._column == "observation":
            observation[1, 0] = np.nan
        if self._step == 4 and self._column == "shape":
            observation = np.zeros((3, 7), np.float32)
        return observation, reward, np.zeros(3, bool), np.zeros(3, bool), {}


class PaidReset(VectorEnv[Any, Any, Any]):
    """A native vector environment of one: episodes of two steps that pay 1 each, and a reset step that pays 50."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self) -> None:
        self.num_envs = 1
        self.single_observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self._step = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._step = 0
        return np.zeros((1, 2), np.float32), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._step = (self._step + 1) % 3
        reward = np.array([50.0 if self._step == 0 else 1.0])
        return np.zeros((1, 2), np.float32), reward, np.array([self._step == 2]), np.zeros(1, bool), {}


class ResumableVector(VectorEnv[Any, Any, Any]):
    """A native vector environment of walks like `Wandering`, which offers its states."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, max_episode_steps: int = 25, kept: int | None = None) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = Wandering.observation_space, Wandering.action_space
        self._limit, self._kept = max_episode_steps, kept
        self.places, self.steps = np.zeros((num_envs, 2)), np.zeros(num_envs, np.int64)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.places, self.steps = self.np_random.normal(size=(self.num_envs, 2)), np.zeros(self.num_envs, np.int64)
        return self.places.copy(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        begins = self.steps == self._limit
        walked = self.places + (actions[:, None] - 150) / 1000
        self.places = np.where(begins[:, None], 0.0, walked) + self.np_random.normal(scale=0.2, size=walked.shape)
        self.steps = np.where(begins, 0, self.steps + 1)
        return self.places.copy(), self.places[:, 0], np.zeros_like(begins), self.steps == self._limit, {}

    def get_state(self) -> list[dict[str, Any]]:
        return [{"place": self.places[i], "steps": int(self.steps[i])} for i in range(self.num_envs)][: self._kept]

    def set_state(self, states: list[dict[str, Any] | None]) -> None:
        for i, state in enumerate(states):
            if state is not None:
                self.places[i], self.steps[i] = state["place"], state["steps"]


class OddSpaces(gym.Env[Any, Any]):
    """An environment with the spaces that it is given."""

    def __init__(self, kind: str) -> None:
        if kind == "interrupted":
            raise KeyboardInterrupt
        box, discrete = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(3)
        observation: dict[str, gym.Space[Any]] = {
            "dict": gym.spaces.Dict({"a": box}),
            "shifted": gym.spaces.Discrete(3, start=1),
        }
        action: dict[str, gym.Space[Any]] = {
            "continuous": box,
            "multi": gym.spaces.MultiDiscrete([2, 2]),
            "shifted-actions": gym.spaces.Discrete(3, start=1),
        }
        self.observation_space = observation.get(kind, box)
        self.action_space = action.get(kind, discrete)


class Drawn(VectorEnv[Any, Any, Any]):
    """A native vector environment of Box actions that observes the action of each member."""

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    single_observation_space = single_action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, num_envs: int = 1) -> None:
        self.num_envs = num_envs
        self.observation_space = self.action_space = gym.spaces.Box(-1, 1, (num_envs, 2), np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros((self.num_envs, 2), np.float32), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        no = np.zeros(self.num_envs, np.bool_)
        return actions, no.astype(np.float64), no, no, {}


def _normalizing(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Wraps an environment in Gymnasium's running statistics, which outlive episodes."""
    return wrappers.NormalizeReward(wrappers.NormalizeObservation(wrappers.RecordEpisodeStatistics(env)))


def register_toys() -> None:
    """Registers the toys with Gymnasium once."""
    if "Counting-v0" not in gym.registry:
        gym.register("Counting-v0", entry_point=Counting)
        gym.register("OddSpaces-v0", entry_point=OddSpaces)
        gym.register("Drawn-v0", entry_point=lambda: OddSpaces("continuous"), vector_entry_point=Drawn)
        gym.register("Wandering-v0", entry_point=Wandering, max_episode_steps=25)
        gym.register("Resumable-v0", entry_point=Resumable, max_episode_steps=25)
        gym.register("ResumableVector-v0", entry_point=Resumable, vector_entry_point=ResumableVector)
        gym.register("Normalizing-v0", entry_point=lambda: _normalizing(Wandering()), max_episode_steps=25)
        gym.register("NormalizingResumable-v0", entry_point=lambda: _normalizing(Resumable()), max_episode_steps=25)
        gym.register("Unsaveable-v0", entry_point=Unsaveable)
        gym.register("Forgetful-v0", entry_point=Forgetful)
