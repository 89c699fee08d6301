"""Wrappers that move the channels of images last, where convolutions on a CPU need them. Done once, on collection."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorObservationWrapper
from gymnasium.vector.utils import batch_space


def has_channels_first(space: gym.Space[Any]) -> bool:
    """Returns True if observations are images whose first dimension is the smallest."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 3 and space.shape[0] < min(space.shape[1:])


def channels_last_space(space: gym.spaces.Box) -> gym.spaces.Box:
    """Returns the space of one transposed observation, [height, width, channels]."""
    return gym.spaces.Box(np.moveaxis(space.low, 0, -1), np.moveaxis(space.high, 0, -1), dtype=space.dtype.type)


def channels_last(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Wraps a single environment if its images have their channels first; otherwise returns it unchanged."""
    return ChannelsLast(env) if has_channels_first(env.observation_space) else env


def channels_last_vector(vector_env: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    """Wraps a vector environment if its images have their channels first; otherwise returns it unchanged."""
    return ChannelsLastVector(vector_env) if has_channels_first(vector_env.single_observation_space) else vector_env


class ChannelsLast(gym.ObservationWrapper[Any, Any, Any]):
    """A single environment with transposed images."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Wraps an environment of images [channels, height, width]."""
        super().__init__(env)
        self.observation_space = channels_last_space(env.observation_space)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Transposes one image."""
        return np.moveaxis(observation, 0, -1)


class ChannelsLastVector(VectorObservationWrapper):
    """A vector environment with transposed images, including the final observations of episodes."""

    def __init__(self, vector_env: VectorEnv[Any, Any, Any]) -> None:
        """Wraps an environment of images [E, channels, height, width]."""
        super().__init__(vector_env)
        self.single_observation_space = channels_last_space(vector_env.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, vector_env.num_envs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps and transposes all images."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            final = [None if last is None else np.moveaxis(last, 0, -1) for last in info["final_obs"]]
            info = {**info, "final_obs": final}
        return self.observations(observation), reward, terminated, truncated, info

    def observations(self, observations: np.ndarray) -> np.ndarray:
        """Transposes a batch of images."""
        return np.ascontiguousarray(np.moveaxis(observations, 1, -1))
