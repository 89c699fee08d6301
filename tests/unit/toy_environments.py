"""Real Gymnasium environments for the tests, well-behaved and broken ones."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
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


class OddSpaces(gym.Env[Any, Any]):
    """An environment with the spaces that it is given."""

    def __init__(self, kind: str) -> None:
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


def register_toys() -> None:
    """Registers the toys with Gymnasium once."""
    if "Counting-v0" not in gym.registry:
        gym.register("Counting-v0", entry_point=Counting)
        gym.register("OddSpaces-v0", entry_point=OddSpaces)
