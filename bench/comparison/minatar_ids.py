"""Registers `Flat/Breakout-v1`: MinAtar's Breakout, minimal actions, the 10x10x4 bool image as a vector of 400."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import FlattenObservation


def make_flat_breakout(**arguments: Any) -> gym.Env[Any, Any]:
    """Makes the environment; needs the package `minatar`."""
    from minatar.gym import BaseEnv

    return FlattenObservation(BaseEnv(game="breakout", use_minimal_action_set=True, **arguments))


if "Flat/Breakout-v1" not in gym.registry:
    gym.register("Flat/Breakout-v1", entry_point=make_flat_breakout)
