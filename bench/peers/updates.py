"""Other libraries' updates on a replay that is full; run by the peers' Python.

updates.py LIBRARY ALGORITHM NETWORK WARM_SECONDS SECONDS
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.remove(str(Path(__file__).parent))  # its files are named like libraries
from comparison.update_timing import (
    ATOMS,
    CASES,
    FRACTIONS,
    GAMMA,
    LEARNING_RATE,
    QUANTILES,
    UPDATES_PER_CALL,
    NetworkCase,
    columns,
    measure,
)

from peers.torch_algorithms import C51, Rainbow, torso

Update = Callable[[], object]


def channels_first(observations: np.ndarray) -> np.ndarray:
    """Returns images [N, channels, height, width]; vectors as they are."""
    return np.ascontiguousarray(np.moveaxis(observations, -1, 1)) if observations.ndim == 4 else observations


def filled_sb3_buffer(case: NetworkCase) -> Any:
    """Returns Stable-Baselines3's replay buffer with all rows; CleanRL's scripts use it, too."""
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    data = columns(case)
    obs, next_obs = channels_first(data["obs"]), channels_first(data["next_obs"])
    low, high = (0, 255) if case.dtype == "uint8" else (-np.inf, np.inf)
    space = spaces.Box(low, high, obs.shape[1:], obs.dtype.type)
    buffer = ReplayBuffer(len(obs), space, spaces.Discrete(case.actions), "cpu", handle_timeout_termination=False)
    for i in range(len(obs)):
        buffer.add(obs[i : i + 1], next_obs[i : i + 1], data["act"][i : i + 1], data["rew"][i : i + 1],
                   data["done"][i : i + 1], [{}])  # fmt: skip
    return buffer


def stable_baselines(algorithm: str, case: NetworkCase) -> Update:
    """Returns SB3's DQN or sb3-contrib's QR-DQN on the case."""
    import gymnasium as gym
    from stable_baselines3.common.logger import configure
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    buffer = filled_sb3_buffer(case)

    class Nowhere(gym.Env[Any, Any]):
        """Has the spaces; is never stepped."""

        observation_space, action_space = buffer.observation_space, buffer.action_space

    class Grid(BaseFeaturesExtractor):
        """MinAtar's convolution and hidden layer."""

        def __init__(self, space: Any) -> None:
            super().__init__(space, case.hidden[-1])
            layers, size = torso(case)
            self.layers = nn.Sequential(layers, nn.Linear(size, case.hidden[-1]), nn.ReLU())

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return self.layers(observations)

    policy, arguments = "MlpPolicy", {"net_arch": list(case.hidden)}
    if len(case.shape) == 3:
        policy, arguments = "CnnPolicy", {"net_arch": []}
        if case.shape[0] == 10:
            arguments |= {"features_extractor_class": Grid, "normalize_images": False}
    if algorithm == "qr":
        from sb3_contrib import QRDQN as Algorithm

        arguments["n_quantiles"] = QUANTILES
    else:
        from stable_baselines3 import DQN as Algorithm
    model = Algorithm(policy, Nowhere(), LEARNING_RATE, buffer_size=10, policy_kwargs=arguments, device="cpu")
    model.replay_buffer = buffer
    model.set_logger(configure(None, []))
    return lambda: model.train(UPDATES_PER_CALL, case.batch)


def tianshou(algorithm: str, case: NetworkCase) -> Update:
    """Returns one of Tianshou's algorithms on the case."""
    from gymnasium import spaces
    from tianshou.algorithm import C51 as TianshouC51
    from tianshou.algorithm import DQN, IQN, QRDQN, RainbowDQN
    from tianshou.algorithm.algorithm_base import policy_within_training_step
    from tianshou.algorithm.modelfree.c51 import C51Policy
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.modelfree.iqn import IQNPolicy
    from tianshou.algorithm.modelfree.qrdqn import QRDQNPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Batch, PrioritizedReplayBuffer, ReplayBuffer
    from tianshou.utils.net.common import ActionReprNetWithVectorOutput
    from tianshou.utils.net.discrete import ImplicitQuantileNetwork, NoisyLinear

    class Features(ActionReprNetWithVectorOutput[Any]):
        """The case's torso, with a head [B, A] or [B, A, Z] behind it."""

        def __init__(self, outputs: int, head: str = "plain") -> None:
            layers, size = torso(case)
            super().__init__(size if head == "none" else case.actions * outputs)
            linear = NoisyLinear if head == "rainbow" else nn.Linear
            self.torso, self.outputs, self.head = layers, outputs, head

            def stream(last: int) -> nn.Sequential:
                sizes = (size, *case.hidden)
                hidden = [part for i, o in itertools.pairwise(sizes) for part in (linear(i, o), nn.ReLU())]
                return nn.Sequential(*hidden, linear(sizes[-1], last))

            if head != "none":
                self.advantages = stream(case.actions * outputs)
            if head == "rainbow":
                self.value = stream(outputs)

        def forward(self, obs: Any, state: Any = None, info: Any = None, **_: Any) -> Any:
            x = self.torso(torch.as_tensor(obs, dtype=torch.float32))
            if self.head == "none":
                return x, state
            x, features = self.advantages(x), x
            if self.outputs > 1:
                x = x.view(-1, case.actions, self.outputs)
            if self.head == "rainbow":
                x = x - x.mean(1, keepdim=True) + self.value(features).view(-1, 1, self.outputs)
            return (x.softmax(2) if self.head in ("probabilities", "rainbow") else x), state

    data, discrete = columns(case), spaces.Discrete(case.actions)
    buffer = ReplayBuffer(len(data["act"]))
    if algorithm == "rainbow":
        buffer = PrioritizedReplayBuffer(len(data["act"]), alpha=0.5, beta=0.4)
    obs, next_obs = channels_first(data["obs"]), channels_first(data["next_obs"])
    for i in range(len(obs)):
        buffer.add(
            Batch(obs=obs[i], act=data["act"][i], rew=data["rew"][i], terminated=data["done"][i], truncated=False,
                  obs_next=next_obs[i], info={})
        )  # fmt: skip
    common: dict[str, Any] = {
        "optim": AdamOptimizerFactory(lr=LEARNING_RATE),
        "gamma": GAMMA,
        "target_update_freq": 1_000,
        "n_step_return_horizon": 3 if algorithm == "rainbow" else 1,
    }
    made: Any
    if algorithm == "dqn":
        made = DQN(policy=DiscreteQLearningPolicy(model=Features(1), action_space=discrete), is_double=False, **common)
    elif algorithm == "double":
        made = DQN(policy=DiscreteQLearningPolicy(model=Features(1), action_space=discrete), is_double=True, **common)
    elif algorithm == "c51":
        model = Features(ATOMS, "probabilities")
        made = TianshouC51(policy=C51Policy(model=model, action_space=discrete, num_atoms=ATOMS), **common)
    elif algorithm == "rainbow":
        model = Features(ATOMS, "rainbow")
        made = RainbowDQN(policy=C51Policy(model=model, action_space=discrete, num_atoms=ATOMS), **common)
    elif algorithm == "qr":
        policy = QRDQNPolicy(model=Features(QUANTILES), action_space=discrete)
        made = QRDQN(policy=policy, num_quantiles=QUANTILES, **common)
    else:
        network = ImplicitQuantileNetwork(
            preprocess_net=Features(1, "none"), action_shape=(case.actions,), hidden_sizes=case.hidden
        )
        policy = IQNPolicy(
            model=network, action_space=discrete, online_sample_size=FRACTIONS, target_sample_size=FRACTIONS
        )
        made = IQN(policy=policy, num_quantiles=FRACTIONS, **common)

    def update() -> None:
        with policy_within_training_step(made.policy):
            for _ in range(UPDATES_PER_CALL):
                made.update(sample_size=case.batch, buffer=buffer)

    return update


def plain_torch(algorithm: str, case: NetworkCase) -> Update:
    """Returns C51 or Rainbow in plain PyTorch, as CleanRL's scripts have them."""
    return C51(case, filled_sb3_buffer(case)) if algorithm == "c51" else Rainbow(case, filled_sb3_buffer(case))


LIBRARIES: dict[str, Callable[[str, NetworkCase], Update]] = {
    "Stable-Baselines3": stable_baselines,
    "Tianshou": tianshou,
    "plain PyTorch": plain_torch,
}

if __name__ == "__main__":
    library, algorithm, network, warm_seconds, seconds = sys.argv[1:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    measure(LIBRARIES[library](algorithm, CASES[network]), float(warm_seconds), float(seconds))
