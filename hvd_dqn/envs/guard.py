"""Checks of observations and rewards, so that a broken environment is reported before it corrupts the weights."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from hvd_dqn.errors import JobFault


class Guard(gym.Wrapper[Any, Any, Any, Any]):
    """Raises JobFault if an observation or a reward of a single environment is invalid."""

    def __init__(self, env: gym.Env[Any, Any], env_index: int) -> None:
        """Wraps environment number `env_index` of this rank."""
        super().__init__(env)
        self._env_index = env_index
        self._step = 0
        self._shape = env.observation_space.shape
        self._categories = env.observation_space.n if isinstance(env.observation_space, gym.spaces.Discrete) else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and checks the first observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._check_observation(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment and checks observation and reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._step += 1
        self._check_observation(observation)
        if not math.isfinite(reward):
            raise JobFault(
                f"environment {self._env_index} returned reward {reward} at its step {self._step}: "
                "rewards must be finite; fix the environment"
            )
        return observation, reward, terminated, truncated, info

    def _check_observation(self, observation: Any) -> None:
        if np.shape(observation) != self._shape:
            raise JobFault(
                f"environment {self._env_index} returned an observation of shape {np.shape(observation)} at its "
                f"step {self._step}: its observation space says {self._shape}; fix the environment"
            )
        if self._categories is not None and not 0 <= observation < self._categories:
            raise JobFault(
                f"environment {self._env_index} returned the observation {observation} at its step {self._step}: "
                f"its observation space is 0 to {self._categories - 1}; fix the environment"
            )
        if isinstance(observation, np.ndarray) and observation.dtype.kind == "f" and not _all_finite(observation):
            raise JobFault(
                f"environment {self._env_index} returned a non-finite observation at its step {self._step}: "
                f"{observation.ravel()[:8]}; fix the environment"
            )


def check_vector_step(observation: np.ndarray, reward: np.ndarray, shape: tuple[int, ...], step: int) -> None:
    """Checks one step of a native vector environment, as `Guard` does for a single one.

    Args:
      observation: [E, *observation_shape].
      reward: float [E].
      shape: the expected shape, [E, *observation_shape].
      step: the number of the vector step, for the message.

    Raises:
      JobFault: if a value is invalid; names the environment and the step.
    """
    if observation.shape != shape:
        raise JobFault(
            f"the vector environment returned observations of shape {observation.shape} at its step {step}: "
            f"its observation space says {shape}; fix the environment"
        )
    if not _all_finite(reward):
        env_index = int(np.flatnonzero(~np.isfinite(reward))[0])
        raise JobFault(
            f"environment {env_index} returned reward {reward[env_index]} at its step {step}: "
            "rewards must be finite; fix the environment"
        )
    if observation.dtype.kind == "f" and not _all_finite(observation):
        env_index = int(np.flatnonzero(~np.isfinite(observation).reshape(len(observation), -1).all(axis=1))[0])
        raise JobFault(
            f"environment {env_index} returned a non-finite observation at its step {step}: "
            f"{observation[env_index].ravel()[:8]}; fix the environment"
        )


def _all_finite(values: np.ndarray) -> bool:
    """Returns True if all values are finite. On short arrays a sum is several times faster than isfinite().all()."""
    return math.isfinite(float(np.add.reduce(values, axis=None))) or bool(np.isfinite(values).all())
