"""TorchRL's DQN: Collector, TensorDictReplayBuffer, DQNLoss and HardUpdate, put together as its DQN examples do.

The environments are Gymnasium's SyncVectorEnv: TorchRL takes no vector environment that resets in the NEXT step, as
Gymnasium's native ones do, and its EnvPool wrapper does not know this EnvPool's spaces. Option: "eager", or
"compiled": torch.compile around policy and update.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from comparison.protocol import Stopwatch, Task, serve
from gymnasium.vector import AutoresetMode
from tensordict.nn import TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymWrapper
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, ConvNet, EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, HardUpdate

from peers.environments import make


class Pixels(torch.nn.Module):
    """Turns bytes into numbers between 0 and 1."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scales the pixels."""
        return pixels.float() / 255.0


class Floats(torch.nn.Module):
    """Turns bools into numbers."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Casts the values."""
        return values.float()


def make_environments(task: Task) -> Any:
    """Makes the vector environment."""
    environments = gym.vector.SyncVectorEnv(
        [lambda: _preprocessed(task) for _ in range(task.num_envs)], autoreset_mode=AutoresetMode.SAME_STEP
    )
    return GymWrapper(environments, categorical_action_encoding=True)


def _preprocessed(task: Task) -> gym.Env[Any, Any]:
    if not task.case.is_atari:
        return make(task.case.env)
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    return FrameStackObservation(AtariPreprocessing(make(task.case.env, frameskip=1)), 4)


def make_network(task: Task, observation_shape: Any, num_actions: int) -> torch.nn.Module:
    """Builds the case's network from the library's parts."""
    case = task.case
    if not case.is_atari:
        return torch.nn.Sequential(
            Floats(),
            MLP(observation_shape[-1], num_actions, num_cells=case.hidden_sizes, activation_class=torch.nn.ReLU),
        )
    convolutions = ConvNet(
        in_features=4,
        num_cells=[32, 64, 64],
        kernel_sizes=[8, 4, 3],
        strides=[4, 2, 1],
        activation_class=torch.nn.ReLU,
    )
    return torch.nn.Sequential(
        Pixels(), convolutions, MLP(3136, num_actions, num_cells=[512], activation_class=torch.nn.ReLU)
    )


def run(task: Task, stopwatch: Stopwatch) -> None:
    """Trains until the stopwatch is satisfied."""
    case = task.case
    torch.set_num_threads(1)
    environments = make_environments(task)
    action_spec = environments.full_action_spec_unbatched["action"]
    network = make_network(task, environments.observation_spec["observation"].shape, action_spec.space.n)
    value = QValueActor(network, in_keys=["observation"], spec=action_spec)
    greedy = EGreedyModule(spec=action_spec, eps_init=case.epsilon, eps_end=case.epsilon, annealing_num_steps=1)
    collector = Collector(
        environments,
        TensorDictSequential(value, greedy),
        frames_per_batch=task.env_steps_per_burst,
        total_frames=-1,
        init_random_frames=0,
        exploration_type=ExplorationType.RANDOM,
        compile_policy=task.option == "compiled",
    )
    loss = DQNLoss(value, loss_function="smooth_l1", delay_value=True)
    loss.make_value_estimator(gamma=case.gamma)
    target = HardUpdate(loss, value_network_update_interval=case.target_update_period)
    optimizer = torch.optim.Adam(loss.parameters(), lr=case.learning_rate)
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(case.replay_capacity), batch_size=case.batch_size, pin_memory=False
    )

    def update(batch: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(batch)["loss"].backward()
        optimizer.step()

    if task.option == "compiled":
        update = torch.compile(update)
    env_steps = 0
    with set_exploration_type(ExplorationType.RANDOM):
        for data in collector:
            env_steps += data.numel()
            replay.extend(data.reshape(-1))
            if env_steps >= case.learning_starts:
                for _ in range(task.updates_per_burst):
                    update(replay.sample())
                    target.step()
            if stopwatch.tick(env_steps, _adam_steps(optimizer)):
                return


def _adam_steps(optimizer: torch.optim.Optimizer) -> int:
    """Reads Adam's own count of its steps, which a compiled step advances as well."""
    state = next(iter(optimizer.state.values()), None)
    return 0 if state is None else int(state["step"])


if __name__ == "__main__":
    serve(run)
