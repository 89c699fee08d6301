"""Registers the tasks of the DeepMind Control Suite, whose observations become one row: `--env FILE:walker-walk-v0`.

Tassa et al. (2018), https://arxiv.org/abs/1801.00690. An episode takes 1,000 steps of rewards from 0 to 1. Needs the
extra [robots].
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

if not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")  # before dm_control is imported, which warns of a missing screen

import gymnasium as gym
import shimmy  # noqa: F401 it registers dm_control/<task>-v0
from gymnasium.wrappers import FlattenObservation

TASKS = ("cartpole-swingup", "cheetah-run", "finger-spin", "reacher-easy", "reacher-hard", "walker-run", "walker-walk")


class Task(FlattenObservation):
    """A task whose observation is one row."""

    def close(self) -> None:
        """Leaves what draws to the end of the process: it cannot be closed by another thread, as a run closes it."""
        if self.render_mode is None:
            super().close()


def _maker(task: str) -> Callable[..., gym.Env[Any, Any]]:
    def make(**arguments: Any) -> gym.Env[Any, Any]:
        camera = {"camera_id": 0}  # the one that follows the robot, where there is one
        return Task(gym.make(f"dm_control/{task}-v0", disable_env_checker=True, render_kwargs=camera, **arguments))

    return make


for _task in TASKS:
    gym.register(f"{_task}-v0", entry_point=_maker(_task))
