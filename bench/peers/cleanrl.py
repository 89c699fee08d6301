"""CleanRL's own scripts, unchanged: dqn.py (PyTorch) and dqn_jax.py, started with the case's values as flags.

They step one environment and fix the network at 120-84. Written for an older Gymnasium; the one thing that is
missing under today's is supplied to them (`final_observation`). Option: "dqn" or "dqn_jax".
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from comparison.protocol import NotApplicable, Stopwatch, Task, serve
from stable_baselines3.common.buffers import ReplayBuffer

from peers.environments import register
from peers.torch_steps import OptimizerSteps


class Finished(Exception):
    """The stopwatch has what it needs."""


class TimedEnvironments(gym.vector.SyncVectorEnv):
    """Counts the steps, feeds the stopwatch, and keeps Gymnasium 0.28's name of the last observation."""

    tick: Any = None
    env_steps = 0
    reset_steps = 0

    def step(self, actions: Any) -> Any:
        """Steps as always."""
        cls = type(self)
        if cls.tick(cls.env_steps, cls.reset_steps):
            raise Finished
        observation, reward, terminated, truncated, info = super().step(actions)
        cls.env_steps += self.num_envs
        cls.reset_steps += int(np.sum(terminated | truncated))
        info.setdefault("final_observation", observation)
        return observation, reward, terminated, truncated, info


def count_samples() -> list[int]:
    """Returns a cell that counts the replay's draws: one per update of dqn_jax.py, whose own count is out of reach."""
    cell, sample = [0], ReplayBuffer.sample

    def counted(self: ReplayBuffer, *args: Any, **kwargs: Any) -> Any:
        cell[0] += 1
        return sample(self, *args, **kwargs)

    ReplayBuffer.sample = counted
    return cell


def run(task: Task, stopwatch: Stopwatch) -> None:
    """Runs the script until the stopwatch is satisfied."""
    case, steps, samples = task.case, OptimizerSteps(), count_samples()
    if case.is_atari:
        raise NotApplicable("CleanRL 1.2.0's Atari script uses wrappers that Gymnasium 1.x no longer has")
    if case.hidden_sizes != (120, 84) or task.num_envs != 1:
        raise NotApplicable("CleanRL's script has one environment and a fixed network of 120-84")
    register(case.env)
    updates = (lambda: samples[0]) if task.option == "dqn_jax" else (lambda: steps.count)
    TimedEnvironments.tick = lambda env_steps, reset_steps: stopwatch.tick(env_steps, updates(), reset_steps)
    gym.vector.SyncVectorEnv = TimedEnvironments
    flags = {
        "env-id": case.env,
        "seed": task.seed,
        "total-timesteps": 10**9,
        "learning-rate": case.learning_rate,
        "buffer-size": case.replay_capacity,
        "gamma": case.gamma,
        "target-network-frequency": case.target_update_period * case.train_period,
        "batch-size": case.batch_size,
        "start-e": case.epsilon,
        "end-e": case.epsilon,
        "learning-starts": case.learning_starts,
        "train-frequency": case.train_period,
    }
    script = Path(importlib.util.find_spec("cleanrl_utils").origin).parents[1] / "cleanrl" / f"{task.option}.py"
    sys.argv = [str(script), *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Finished:
        return


if __name__ == "__main__":
    serve(run)
