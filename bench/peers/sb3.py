"""Stable-Baselines3's DQN and SBX's (the same library's JAX sibling): the module is started for either of them.

`train_freq` and `gradient_steps` carry the burst. Options: "sb3" or "sbx", then "dummy" (DummyVecEnv, their usual
vector environment) or "envpool" (C++ environments behind an adapter), as in "sbx envpool".
"""

from __future__ import annotations

from typing import Any

from comparison.protocol import Stopwatch, Task, serve
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from peers.environments import register
from peers.torch_steps import OptimizerSteps


class Timing(BaseCallback):
    """Feeds the stopwatch before each rollout."""

    def __init__(self, stopwatch: Stopwatch, updates: Any) -> None:
        super().__init__()
        self._stopwatch, self._updates = stopwatch, updates
        self._done = False

    def _on_rollout_start(self) -> None:
        self._done = self._stopwatch.tick(self.num_timesteps, self._updates(self.model))

    def _on_step(self) -> bool:
        return not self._done


def make_environments(task: Task) -> VecEnv:
    """Makes the vectorised environments as the library's documentation does."""
    case = task.case
    if task.option.endswith("envpool"):
        from peers.envpool_for_sb3 import EnvPoolVecEnv

        return EnvPoolVecEnv(task)
    register(case.env)
    if case.is_atari:
        # The wrapper skips frames itself, so the environment must not.
        arguments = {"frameskip": 1, "repeat_action_probability": 0.0}
        return VecFrameStack(make_atari_env(case.env, task.num_envs, seed=task.seed, env_kwargs=arguments), n_stack=4)
    return make_vec_env(case.env, task.num_envs, seed=task.seed, env_kwargs={"disable_env_checker": True})


def run(task: Task, stopwatch: Stopwatch) -> None:
    """Trains until the stopwatch is satisfied."""
    case, steps = task.case, OptimizerSteps()
    arguments: dict[str, Any] = {
        "learning_rate": case.learning_rate,
        "buffer_size": case.replay_capacity,
        "learning_starts": case.learning_starts,
        "batch_size": case.batch_size,
        "gamma": case.gamma,
        "train_freq": task.env_steps_per_burst // task.num_envs,
        "gradient_steps": task.updates_per_burst,
        "target_update_interval": case.target_update_period * case.train_period,
        "exploration_initial_eps": case.epsilon,
        "exploration_final_eps": case.epsilon,
        "policy_kwargs": {} if case.is_atari else {"net_arch": list(case.hidden_sizes)},
        "seed": task.seed,
        "device": "cpu",
    }
    if task.option.startswith("sbx"):
        from sbx import DQN

        model = DQN("CnnPolicy" if case.is_atari else "MlpPolicy", make_environments(task), **arguments)
        timing = Timing(stopwatch, lambda model: int(model.policy.qf_state.step))
    else:
        from stable_baselines3 import DQN

        arguments["max_grad_norm"] = case.max_grad_norm
        model = DQN("CnnPolicy" if case.is_atari else "MlpPolicy", make_environments(task), **arguments)
        timing = Timing(stopwatch, lambda _: steps.count)
    model.learn(10**9, callback=timing, log_interval=1_000)


if __name__ == "__main__":
    serve(run)
