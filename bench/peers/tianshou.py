"""Tianshou's DQN: its Collector, its buffer and its update in the documented loop without a Trainer.

The Trainer scans the whole replay for NaN after each collection; the plain loop is the faster of the two documented
ways. Option: "dummy" (Tianshou's own serial vector environment) or "envpool" (C++ environments, which it supports).
"""

from __future__ import annotations

from typing import Any

from comparison.protocol import NotApplicable, Stopwatch, Task, serve
from tianshou.algorithm import DQN
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.env.atari.atari_network import DQNet, ScaledObsInputActionReprNet
from tianshou.utils.net.common import Net

from peers.environments import make
from peers.torch_steps import OptimizerSteps


def make_environments(task: Task) -> Any:
    """Makes the vector environment that the option names."""
    case = task.case
    if task.option == "envpool":
        import envpool

        if case.env.startswith("Flat/"):
            raise NotApplicable("EnvPool has no MinAtar")
        name = case.env.removeprefix("ALE/")  # its Atari preprocesses as Mnih et al. (2015) by itself
        return envpool.make_gymnasium(name, num_envs=task.num_envs, num_threads=1, seed=task.seed)
    if case.is_atari:
        raise NotApplicable("Tianshou's own Atari wrappers fail with NumPy 2.4; it prefers EnvPool anyway")
    return DummyVectorEnv([lambda: make(case.env) for _ in range(task.num_envs)])


def make_network(task: Task, observation_shape: Any, num_actions: int) -> Any:
    """Builds the case's network from the library's parts."""
    if task.case.is_atari:
        channels, height, width = observation_shape
        return ScaledObsInputActionReprNet(DQNet(channels, height, width, num_actions))
    return Net(state_shape=observation_shape, action_shape=num_actions, hidden_sizes=task.case.hidden_sizes)


def run(task: Task, stopwatch: Stopwatch) -> None:
    """Trains until the stopwatch is satisfied."""
    case, steps = task.case, OptimizerSteps()
    environments = make_environments(task)
    observation_space, action_space = environments.observation_space, environments.action_space
    if isinstance(action_space, list):
        observation_space, action_space = observation_space[0], action_space[0]
    policy = DiscreteQLearningPolicy(
        model=make_network(task, observation_space.shape, int(action_space.n)),
        action_space=action_space,
        observation_space=observation_space,
        eps_training=case.epsilon,
    )
    algorithm = DQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=case.learning_rate),
        gamma=case.gamma,
        target_update_freq=case.target_update_period,
        is_double=False,
        huber_loss_delta=1.0,
    )
    buffer = VectorReplayBuffer(case.replay_capacity, task.num_envs)
    collector = Collector(algorithm, environments, buffer, exploration_noise=True)
    collector.reset()
    env_steps = 0
    with policy_within_training_step(policy):
        while not stopwatch.tick(env_steps, steps.count):
            env_steps += collector.collect(n_step=task.env_steps_per_burst).n_collected_steps
            if env_steps >= case.learning_starts:
                for _ in range(task.updates_per_burst):
                    algorithm.update(sample_size=case.batch_size, buffer=buffer)


if __name__ == "__main__":
    serve(run)
