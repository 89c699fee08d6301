"""Finds out how many frames an environment's observations stack."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import FrameStackObservation

from hvd_dqn.envs.atari import is_atari
from hvd_dqn.envs.channels_last import ChannelsLast

_ATARI_STACK = 4
"""Of ALE's vector form and of EnvPool, unless their argument stack_num is another."""


def find_stacked_frames(env: gym.Env[Any, Any], env_id: str, arguments: dict[str, Any]) -> int:
    """Returns how many frames the last dimension of observations stacks, 1 if none are known.

    Args:
      env: a single environment with its wrappers; images have their channels last.
      env_id: its Gymnasium id.
      arguments: of its constructor.
    """
    shape = env.observation_space.shape
    if shape is None or len(shape) != 3:
        return 1
    stacked = arguments.get("stack_num", _ATARI_STACK) if is_atari(env_id) else _stacked_by_wrapper(env)
    return stacked if type(stacked) is int and stacked > 0 and shape[-1] % stacked == 0 else 1


def _stacked_by_wrapper(env: gym.Env[Any, Any]) -> int:
    """Returns the size of a stack whose dimension has been moved last; 1 for none."""
    layer, moved = env, False
    while isinstance(layer, gym.Wrapper):
        moved |= isinstance(layer, ChannelsLast)
        if isinstance(layer, FrameStackObservation):
            return int(layer.stack_size) if moved else 1
        layer = layer.env
    return 1
