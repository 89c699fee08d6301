"""skrl's DQN (PyTorch) on Gymnasium's vector environments, stepped as its sequential trainer does.

Option: "native" (the environment's own vector form) or "sync" (one loop over environments). skrl takes the step that
only resets an environment for a transition; those are counted out here.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import gymnasium as gym
import torch
from comparison.protocol import NotApplicable, Stopwatch, Task, serve
from skrl.agents.torch.dqn import DQN
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, Model

from peers.environments import register
from peers.torch_steps import OptimizerSteps


class QNetwork(DeterministicMixin, Model):
    """The case's MLP in the library's model class."""

    def __init__(self, task: Task, environments: Any) -> None:
        spaces = {"observation_space": environments.observation_space, "action_space": environments.action_space}
        Model.__init__(self, **spaces, device="cpu")
        DeterministicMixin.__init__(self)
        sizes = (self.num_observations, *task.case.hidden_sizes)
        layers = [part for i, o in pairwise(sizes) for part in (torch.nn.Linear(i, o), torch.nn.ReLU())]
        self.network = torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], self.num_actions))

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[torch.Tensor, dict[str, Any]]:
        """Returns the action values."""
        return self.network(inputs["observations"]), {}


def make_environments(task: Task) -> Any:
    """Makes the vector environment that the option names."""
    case = task.case
    if case.is_atari:
        raise NotApplicable("skrl has no Atari example; its memory holds float32 images")
    register(case.env)
    if task.option == "native" and gym.spec(case.env).vector_entry_point is None:
        raise NotApplicable(f"{case.env} has no native vector form")
    mode = "vector_entry_point" if task.option == "native" else "sync"
    return wrap_env(gym.make_vec(case.env, num_envs=task.num_envs, vectorization_mode=mode), verbose=False)


def run(task: Task, stopwatch: Stopwatch) -> None:
    """Trains until the stopwatch is satisfied."""
    case, steps, n = task.case, OptimizerSteps(), task.num_envs
    logging.getLogger("skrl").setLevel(logging.ERROR)
    environments = make_environments(task)
    agent = DQN(
        models={"q_network": QNetwork(task, environments), "target_q_network": QNetwork(task, environments)},
        memory=RandomMemory(memory_size=case.replay_capacity // n, num_envs=n, device="cpu"),
        observation_space=environments.observation_space,
        action_space=environments.action_space,
        device="cpu",
        cfg={
            "gradient_steps": task.updates_per_burst,
            "batch_size": case.batch_size,
            "discount_factor": case.gamma,
            "polyak": 1.0,
            "learning_rate": case.learning_rate,
            "learning_starts": case.learning_starts // n,
            "update_interval": task.env_steps_per_burst // n,
            "target_update_interval": case.target_update_period,
            "exploration_scheduler": lambda timestep, timesteps: case.epsilon,
            "experiment": {"write_interval": 0, "checkpoint_interval": 0},
        },
    )
    agent.init()
    agent.enable_training_mode(True)
    loop(agent, environments, n, lambda *counters: stopwatch.tick(counters[0], steps.count, counters[1]))


def loop(agent: Any, environments: Any, num_envs: int, tick: Any) -> None:
    """Steps environments and agent in turn, as the library's own trainers do, until tick(env, reset steps) is True."""
    total, timestep, reset_steps = 10**9, 0, 0
    observations, _ = environments.reset()
    states, done = None, torch.zeros(num_envs, 1, dtype=torch.bool)
    while not tick(timestep * num_envs, reset_steps):
        agent.pre_interaction(timestep=timestep, timesteps=total)
        with torch.no_grad():
            actions = agent.act(observations, states, timestep=timestep, timesteps=total)[0]
            next_observations, rewards, terminated, truncated, infos = environments.step(actions)
            reset_steps += int(done.sum())
            done = terminated | truncated
            agent.record_transition(
                observations=observations,
                states=states,
                actions=actions,
                rewards=rewards,
                next_observations=next_observations,
                next_states=states,
                terminated=terminated,
                truncated=truncated,
                infos=infos,
                timestep=timestep,
                timesteps=total,
            )
        agent.post_interaction(timestep=timestep, timesteps=total)
        observations = next_observations
        timestep += 1


if __name__ == "__main__":
    serve(run)
