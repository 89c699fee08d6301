"""RLlib's DQN (new API stack) in one process: local env runner, local learner, no remote workers.

`training_intensity` carries the replay ratio, `rollout_fragment_length` the burst. Option: "sync" (one loop over
environments) or "native" (Gymnasium's own vector form of the environment).
"""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from comparison.protocol import NotApplicable, Stopwatch, Task, serve
from gymnasium.wrappers import DtypeObservation
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.wrappers.atari_wrappers import wrap_atari_for_new_api_stack
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.registry import register_env

from peers.environments import make, register
from peers.torch_steps import OptimizerSteps

NATURE_CNN = [[32, 8, 4], [64, 4, 2], [64, 3, 1]]


def make_config(task: Task) -> DQNConfig:
    """Writes the task as RLlib's configuration."""
    case, env = task.case, task.case.env
    register(env)
    model = DefaultModelConfig(fcnet_hiddens=list(case.hidden_sizes), fcnet_activation="relu", head_fcnet_hiddens=[])
    if task.option == "native" and (case.is_atari or gym.spec(env).vector_entry_point is None):
        raise NotApplicable(f"{env} has no native vector form that RLlib preprocesses")
    if case.is_atari:
        env = "benchmark-atari"
        register_env(env, lambda _: wrap_atari_for_new_api_stack(make(case.env, frameskip=1), framestack=4))
        model = DefaultModelConfig(conv_filters=NATURE_CNN, conv_activation="relu", head_fcnet_hiddens=[512])
    elif case.env.startswith("Flat/"):
        # RLlib hands bools to its network as they are, which then fails.
        env = "benchmark-floats"
        register_env(env, lambda _: DtypeObservation(make(case.env), np.float32))
    return (
        DQNConfig()
        .environment(env)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=task.num_envs,
            rollout_fragment_length=task.env_steps_per_burst // task.num_envs,
            gym_env_vectorize_mode="vector_entry_point" if task.option == "native" else "sync",
        )
        .learners(num_learners=0)
        .rl_module(model_config=model)
        .training(
            lr=case.learning_rate,
            train_batch_size_per_learner=case.batch_size,
            training_intensity=case.batch_size / case.train_period,
            num_steps_sampled_before_learning_starts=case.learning_starts,
            target_network_update_freq=case.target_update_period * case.train_period,
            gamma=case.gamma,
            epsilon=case.epsilon,
            double_q=False,
            dueling=False,
            n_step=1,
            grad_clip=case.max_grad_norm,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": case.replay_capacity},
        )
        .reporting(
            min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0, min_train_timesteps_per_iteration=0
        )
        .debugging(seed=task.seed, log_level="ERROR")
    )


def run(task: Task, stopwatch: Stopwatch) -> None:
    """Trains until the stopwatch is satisfied."""
    steps = OptimizerSteps()
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    algorithm = make_config(task).build_algo()
    try:
        while not stopwatch.tick(_env_steps(algorithm), steps.count):
            # One collection and its updates; train() would add the reporting of an iteration.
            algorithm.training_step()
    finally:
        algorithm.stop()
        ray.shutdown()


def _env_steps(algorithm: Any) -> int:
    """Reads how many transitions the env runner has made, resets excluded."""
    return int(algorithm.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))


if __name__ == "__main__":
    serve(run)
