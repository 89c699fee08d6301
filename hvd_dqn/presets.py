"""Named starting points: what differs from the defaults, per environment."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "cartpole": {},
    "lunarlander": {
        "env": "LunarLander-v3",
        "total_env_steps": 200_000,
        "num_envs": 16,
        "hidden_sizes": (256, 256),
        "replay_capacity": 200_000,
        "learning_starts": 5_000,
        "global_batch_size": 128,
        "train_period": 4,
        "learning_rate": 5e-4,
        "target_update_period": 500,
        "epsilon_decay_env_steps": 40_000,
        "epsilon_end": 0.02,
        "evaluation_period": 10_000,
        "log_period": 2_000,
        "checkpoint_period": 50_000,
    },
    "acrobot": {
        "env": "Acrobot-v1",
        "total_env_steps": 100_000,
        "hidden_sizes": (128, 128),
        "epsilon_decay_env_steps": 20_000,
        "evaluation_period": 5_000,
        "checkpoint_period": 25_000,
    },
    "mountaincar": {
        "env": "MountainCar-v0",
        "total_env_steps": 150_000,
        "hidden_sizes": (256, 256),
        "learning_rate": 1e-3,
        "replay_capacity": 100_000,
        "epsilon_decay_env_steps": 60_000,
        "epsilon_end": 0.05,
        "target_update_period": 500,
        "evaluation_period": 5_000,
        "checkpoint_period": 25_000,
    },
    "maze": {
        "env": "hvd_dqn/TreasureMaze-v0",
        "total_env_steps": 30_000,
        "hidden_sizes": (64, 64),
        "gamma": 0.9,
        "loss": "mse",
        "max_grad_norm": 0.0,
        "epsilon_end": 0.5,
        "replay_capacity": 20_000,
        "target_update_period": 100,
    },
}
"""Flat configuration fields of each `--preset`."""
