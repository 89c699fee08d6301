"""Presets: settings of an algorithm or for an environment, where they differ from the defaults."""

from __future__ import annotations

from typing import Any, NamedTuple


class About(NamedTuple):
    """Where a preset's values come from."""

    source: str
    deviations: str = ""
    """From the source."""
    measured: str = ""
    """Mean returns of docs/reference/learning-results.md, greedy, of the best checkpoint."""


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

PROTOCOLS: dict[str, dict[str, Any]] = {
    "own": {},
    "dopamine": {"clip_rewards": True, "evaluation_epsilon": 0.001, "evaluation_step_limit": 27_000},
    "nature": {"clip_rewards": True, "evaluation_epsilon": 0.05, "evaluation_step_limit": 27_000},
}
"""Flat configuration fields of each `--protocol`; its environment is in hvd_dqn/envs/atari.py. 27,000 env steps are
108,000 frames."""

_ATARI = {
    "env": "ALE/Pong-v5",
    "total_env_steps": 50_000_000,
    "num_envs": 16,
    "global_batch_size": 32,
    "train_period": 4,
    "replay_capacity": 1_000_000,
    "max_grad_norm": 0.0,
    "evaluation_period": 250_000,
    "evaluation_episodes": 10,
    "final_evaluation_episodes": 30,
    "checkpoint_period": 250_000,
    "log_period": 10_000,
}
"""What the published settings for Atari have in common."""
_NATURE_DQN = {
    **_ATARI,
    "protocol": "nature",
    **PROTOCOLS["nature"],
    "loss": "huber",
    "learning_rate": 6.25e-5,
    "optimizer_epsilon": 1.5e-4,
    "target_update_period": 2_500,
    "learning_starts": 50_000,
    "epsilon_decay_env_steps": 1_000_000,
    "epsilon_end": 0.1,
}
_DOPAMINE_DQN = {
    **_ATARI,
    "protocol": "dopamine",
    **PROTOCOLS["dopamine"],
    "learning_rate": 6.25e-5,
    "optimizer_epsilon": 1.5e-4,
    "target_update_period": 2_000,
    "learning_starts": 20_000,
    "epsilon_decay_env_steps": 250_000,
    "epsilon_end": 0.01,
}
_DOPAMINE_RAINBOW = {
    **_DOPAMINE_DQN,
    "algorithm": "c51",
    "n_step": 3,
    "replay": "prioritized",
    "priority_exponent": 0.5,
    "importance_exponent": 0.5,
}
_DOPAMINE_QR = {
    **_DOPAMINE_RAINBOW,
    "algorithm": "qr",
    "quantiles": 200,
    "learning_rate": 5e-5,
    "optimizer_epsilon": 3.125e-4,
}
_DOPAMINE_IQN = {
    **_DOPAMINE_DQN,
    "algorithm": "iqn",
    "n_step": 3,
    "quantiles": 64,
    "learning_rate": 5e-5,
    "optimizer_epsilon": 3.125e-4,
}

_DECQN = {
    "env": "HalfCheetah-v5",
    "algorithm": "decqn",
    "action_bins": 2,
    "total_env_steps": 500_000,
    "num_envs": 8,
    "hidden_sizes": (512, 512),
    "double": True,
    "loss": "huber",
    "n_step": 3,
    "learning_rate": 1e-4,
    "max_grad_norm": 40.0,
    "train_period": 8,
    "target_update_period": 100,
    "replay": "prioritized",
    "priority_exponent": 0.6,
    "importance_exponent": 0.2,
    "replay_capacity": 1_000_000,
    "global_batch_size": 256,
    "epsilon_start": 0.1,
    "epsilon_end": 0.1,
    "evaluation_period": 50_000,
    "evaluation_episodes": 10,
    "final_evaluation_episodes": 30,
    "checkpoint_period": 50_000,
    "log_period": 10_000,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Algorithms alone: the rest are the defaults, and the environment is CartPole unless --env names another.
    "dqn": {},
    "double": {"double": True},
    "rainbow": {**_RAINBOW, "value_min": 0.0, "value_max": 100.0},
    "qr": {"algorithm": "qr"},
    "iqn": {"algorithm": "iqn", "quantiles": 8},  # N = N' = 8, Dabney et al. (2018), section 4.1
    "munchausen-iqn": {"algorithm": "munchausen-iqn", "quantiles": 8},
    "decqn": _DECQN,  # on Gymnasium's HalfCheetah, or another robot that --env names
    # Environments.
    "cartpole": {
        "algorithm": "munchausen",
        "hidden_sizes": (128, 128),
        "n_step": 10,
        "loss": "huber",
        "learning_rate_end": 0.2,
    },
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
    "pong": {
        **_ATARI,
        "protocol": "nature",
        **PROTOCOLS["nature"],
        "total_env_steps": 1_000_000,
        "double": True,
        "n_step": 3,
        "loss": "huber",
        "learning_rate": 1e-4,
        "target_update_period": 1_000,
        "replay_capacity": 100_000,
        "learning_starts": 10_000,
        "epsilon_decay_env_steps": 100_000,
        "epsilon_end": 0.02,
        "evaluation_period": 50_000,
        "checkpoint_period": 50_000,
    },
    "atari-nature-dqn": _NATURE_DQN,
    "atari-dopamine-dqn": _DOPAMINE_DQN,
    "atari-dopamine-rainbow": _DOPAMINE_RAINBOW,
    "atari-dopamine-qr": _DOPAMINE_QR,
    "atari-dopamine-iqn": _DOPAMINE_IQN,
    "minatar-dqn": _MINATAR,
    "minatar-rainbow": {
        **_MINATAR,
        **_RAINBOW,
        "value_min": 0.0,
        "value_max": 100.0,
        "learning_rate": 1e-4,
    },
    "robot-reacher": {**_DECQN, "env": "Reacher-v5", "action_bins": 5, "total_env_steps": 200_000},
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

_BY_HAND = "chosen by hand on small seeds"
_YOUNG_AND_TIAN = "Young and Tian (2019), https://arxiv.org/abs/1903.03176"
_HESSEL = "Hessel et al. (2018), https://arxiv.org/abs/1710.02298"
_SEYDE = "Seyde et al. (2023), https://arxiv.org/abs/2210.12566, by their code's config_default.py"
_OF_ROBOTS = "eight environments in place of one; ReLU in place of a normalised tanh and ELU"
_DOPAMINE = "Dopamine (Castro et al. 2018, https://arxiv.org/abs/1812.06110), 2026-03, jax/agents"
_OF_MINATAR = (
    "an update every four steps and Adam, as in Obando-Ceron and Castro (2021); sixteen environments in place of one"
)
_OF_ATARI = (
    "sixteen environments in place of one, so that four updates follow sixteen env steps; epsilon decays from the "
    "first env step, not from the first update; evaluations of ten episodes, not of 125,000 "
    "env steps; the best checkpoint is evaluated last, on thirty episodes"
)

ABOUT: dict[str, About] = {
    "dqn": About("Mnih et al. (2015), https://www.nature.com/articles/nature14236", "Adam, squared error"),
    "double": About("van Hasselt et al. (2016), https://arxiv.org/abs/1509.06461", "Adam, squared error"),
    "rainbow": About(_HESSEL, "the defaults' network, rates and periods, for CartPole"),
    "qr": About("Dabney et al. (2018), https://arxiv.org/abs/1710.10044", "51 quantiles in place of 200"),
    "iqn": About("Dabney et al. (2018), https://arxiv.org/abs/1806.06923", "fractions are evenly spaced when acting"),
    "munchausen-iqn": About(
        "Vieillard et al. (2020), https://arxiv.org/abs/2007.14430", "fractions are evenly spaced when acting"
    ),
    "decqn": About(_SEYDE, _OF_ROBOTS),
    "cartpole": About(_BY_HAND, measured="497.7 at the end (30 runs on 1, 2, 4 ranks)"),
    "lunarlander": About(_BY_HAND, measured="237.4 (5 runs, 205.8 to 254.3)"),
    "acrobot": About(_BY_HAND, measured="-81.5 (3 runs, -83.9 to -80.2)"),
    "mountaincar": About(_BY_HAND),
    "atari": About("Mnih et al. (2015), https://www.nature.com/articles/nature14236", "smaller: for a first try"),
    "pong": About(_BY_HAND, "for two cores: three-step returns, a faster fall of epsilon, a smaller replay buffer"),
    "atari-nature-dqn": About(
        "Mnih et al. (2015), https://www.nature.com/articles/nature14236, Extended Data Table 1, in the units of Quan "
        "and Ostrovski (2020): 10,000 env steps, that are 2,500 updates, between two target networks",
        "Adam with Dopamine's learning rate in place of centred RMSProp, whose constants are for a gradient summed "
        f"over the batch; {_OF_ATARI}",
    ),
    "atari-dopamine-dqn": About(f"{_DOPAMINE}/dqn/configs/dqn.gin", _OF_ATARI),
    "atari-dopamine-rainbow": About(
        f"{_DOPAMINE}/rainbow/configs/rainbow.gin: Rainbow without double, dueling and noisy",
        _OF_ATARI,
    ),
    "atari-dopamine-qr": About(
        f"{_DOPAMINE}/quantile/configs/quantile.gin",
        f"priorities are absolute errors of the mean value, not losses; {_OF_ATARI}",
    ),
    "atari-dopamine-iqn": About(
        f"{_DOPAMINE}/implicit_quantile/configs/implicit_quantile.gin",
        f"fractions are evenly spaced when acting, not drawn; {_OF_ATARI}",
    ),
    "minatar-dqn": About(_YOUNG_AND_TIAN, _OF_MINATAR, "Breakout 30.1, Asterix 26.6 (1 run each)"),
    "minatar-rainbow": About(f"{_YOUNG_AND_TIAN}; {_HESSEL}", _OF_MINATAR),
    "robot-reacher": About(_SEYDE, f"five bins, as the largest torques cost most; {_OF_ROBOTS}"),
    "maze": About(_BY_HAND + ", so that the learned values agree with the exact ones"),
}
"""Where the values of each preset come from; the same keys as PRESETS."""


def preset_for(env: str) -> str | None:
    """Returns the preset whose settings an environment needs, None where the defaults are as good as any."""
    if env.startswith("ALE/"):
        return "atari"
    return "cartpole" if env == "CartPole-v1" else None
