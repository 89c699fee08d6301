"""Presets: settings of an algorithm or for an environment, where they differ from the defaults."""

from __future__ import annotations

from typing import Any

_MINATAR = {
    "env": "MinAtar/Breakout-v0",
    "total_env_steps": 2_000_000,
    "num_envs": 16,
    "learning_rate": 2.5e-4,
    "global_batch_size": 32,
    "train_period": 4,
    "target_update_period": 1_000,
    "replay_capacity": 100_000,
    "learning_starts": 5_000,
    "epsilon_decay_env_steps": 100_000,
    "epsilon_end": 0.1,
    "max_grad_norm": 0.0,
    "evaluation_period": 100_000,
    "checkpoint_period": 100_000,
    "log_period": 10_000,
}
"""Young and Tian (2019), https://arxiv.org/abs/1903.03176, with an update every four steps and Adam, as in Obando-Ceron
and Castro (2021), "Revisiting Rainbow", and sixteen environments in place of one."""
_RAINBOW = {
    "algorithm": "c51",
    "double": True,
    "dueling": True,
    "noisy": True,
    "n_step": 3,
    "replay": "prioritized",
    "epsilon_start": 0.0,
    "epsilon_end": 0.0,
}
"""All parts of Hessel et al. (2018), "Rainbow", https://arxiv.org/abs/1710.02298."""

PRESETS: dict[str, dict[str, Any]] = {
    # Algorithms alone: the rest are the defaults, and the environment is CartPole unless --env names another.
    "dqn": {},
    "double": {"double": True},
    "rainbow": {**_RAINBOW, "value_min": 0.0, "value_max": 100.0},
    "qr": {"algorithm": "qr"},
    "iqn": {"algorithm": "iqn", "quantiles": 8},  # N = N' = 8, Dabney et al. (2018), section 4.1
    "munchausen-iqn": {"algorithm": "munchausen-iqn", "quantiles": 8},
    # Environments.
    "cartpole": {},
    "lunarlander": {
        "env": "LunarLander-v3",
        "total_env_steps": 300_000,
        "hidden_sizes": (128, 128),
        "double": True,
        "loss": "huber",
        "learning_rate": 6.3e-4,
        "train_period": 2,
        "target_update_period": 250,
        "replay_capacity": 100_000,
        "epsilon_decay_env_steps": 20_000,
        "epsilon_end": 0.05,
        "evaluation_period": 10_000,
        "checkpoint_period": 50_000,
        "log_period": 2_000,
    },
    "acrobot": {
        "env": "Acrobot-v1",
        "total_env_steps": 100_000,
        "train_period": 2,
        "double": True,
        "epsilon_decay_env_steps": 20_000,
        "evaluation_period": 5_000,
        "checkpoint_period": 25_000,
        "log_period": 2_000,
    },
    "mountaincar": {
        "env": "MountainCar-v0",
        "total_env_steps": 150_000,
        "hidden_sizes": (128, 128),
        "double": True,
        "train_period": 2,
        "target_update_period": 300,
        "epsilon_decay_env_steps": 60_000,
        "evaluation_period": 5_000,
        "checkpoint_period": 25_000,
        "log_period": 2_000,
    },
    "atari": {
        "env": "ALE/Pong-v5",
        "clip_rewards": True,
        "total_env_steps": 10_000_000,
        "num_envs": 16,
        "loss": "huber",
        "learning_rate": 1e-4,
        "global_batch_size": 32,
        "train_period": 4,
        "target_update_period": 2_500,
        "replay_capacity": 100_000,
        "learning_starts": 20_000,
        "epsilon_decay_env_steps": 1_000_000,
        "epsilon_end": 0.01,
        "evaluation_period": 250_000,
        "evaluation_episodes": 10,
        "final_evaluation_episodes": 30,
        "checkpoint_period": 100_000,
        "log_period": 10_000,
    },
    "minatar-dqn": _MINATAR,
    "minatar-rainbow": {
        **_MINATAR,
        **_RAINBOW,
        "value_min": 0.0,
        "value_max": 100.0,
        "learning_rate": 1e-4,
    },
    "maze": {
        "env": "hvd_dqn/TreasureMaze-v0",
        "total_env_steps": 30_000,
        "gamma": 0.9,
        "max_grad_norm": 0.0,
        "train_period": 4,
        "epsilon_end": 0.5,
        "replay_capacity": 20_000,
        "target_update_period": 100,
    },
}
"""Flat configuration fields of each `--preset`."""


def preset_for(env: str) -> str | None:
    """Returns the preset whose settings an environment needs, None where the defaults are as good as any."""
    return "atari" if env.startswith("ALE/") else None
