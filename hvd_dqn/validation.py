"""What a configuration must satisfy, alone and at a number of ranks; each error says what to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hvd_dqn.config import Config, flatten, replace
from hvd_dqn.counters import LARGEST
from hvd_dqn.errors import UserError
from hvd_dqn.files import parse_json
from hvd_dqn.locations import check_url
from hvd_dqn.presets import PROTOCOLS
from hvd_dqn.registry import ALGORITHMS, NETWORKS, REPLAYS, check_registered
from hvd_dqn.shares import share
from hvd_dqn.strategies import check_strategy

_AT_LEAST_ONE = [
    "total_env_steps",
    "num_envs",
    "replay_capacity",
    "learning_starts",
    "global_batch_size",
    "train_period",
    "target_update_period",
    "log_period",
    "checkpoint_period",
    "keep_checkpoints",
    "evaluation_episodes",
    "final_evaluation_episodes",
    "quantiles",
    "n_step",
    "impala_width",
    "sync_period",
    "servers",
]
_NOT_NEGATIVE = [
    "seed",
    "snapshot_period",
    "stacked_frames",
    "epsilon_decay_env_steps",
    "importance_rise_env_steps",
    "max_grad_norm",
    "skip_nonfinite",
    "evaluation_period",
    "evaluation_step_limit",
    "record_period",
    "stall_timeout_seconds",
    "time_reserve_seconds",
    "threads_per_rank",
    "optimizer_epsilon",
]
_PROBABILITIES = [
    "epsilon_start",
    "epsilon_end",
    "epsilon_decay_per_episode",
    "learning_rate_end",
    "gamma",
    "munchausen_bonus",
    "priority_exponent",
    "importance_exponent",
    "evaluation_epsilon",
]
_MOST_LAYERS = 100
_GROWING = ["num_envs", "global_batch_size", "replay_capacity", "learning_starts", "train_period"]


def flag(name: str) -> str:
    """Returns the command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def validate(config: Config) -> None:
    """Checks everything that does not depend on the number of ranks.

    Raises:
      UserError: naming the flag, its value and the remedy.
    """
    values = flatten(config)
    for name, value in values.items():
        _require(not isinstance(value, float) or math.isfinite(value), f"{flag(name)} is {value}: give a finite number")
        small = type(value) is not int or name == "seed" or value <= LARGEST
        _require(small, f"{flag(name)} is {value}: give at most {LARGEST}")
    for name in _AT_LEAST_ONE:
        _require(values[name] >= 1, f"{flag(name)} is {values[name]}: give at least 1")
    for name in _NOT_NEGATIVE:
        _require(values[name] >= 0, f"{flag(name)} is {values[name]}: give 0 or more")
    for name in _PROBABILITIES:
        _require(0.0 <= values[name] <= 1.0, f"{flag(name)} is {values[name]}: give a number from 0 to 1")
    _require(
        values["learning_rate"] > 0,
        f"--learning-rate is {values['learning_rate']}: give a positive number",
    )
    _require(
        values["optimizer_epsilon"] == 0.0 or values["optimizer"] != "sgd",
        "--optimizer sgd has no divisor: leave --optimizer-epsilon out",
    )
    _require(
        values["loss_scale"] > 0 and math.frexp(values["loss_scale"])[0] == 0.5,
        f"--loss-scale is {values['loss_scale']}: give a power of two, such as 1024, which rounds nothing",
    )
    _require(
        values["policy_lag"] in (0, 1),
        f"--policy-lag is {values['policy_lag']}: give 0, or 1 to overlap collecting and learning",
    )
    _require(
        all(1 <= units <= LARGEST for units in values["hidden_sizes"]) and len(values["hidden_sizes"]) <= _MOST_LAYERS,
        f"--hidden-sizes is {str(values['hidden_sizes'])[:200]}: give at most {_MOST_LAYERS} layer sizes of at least 1",
    )
    if values["epsilon_schedule"] == "exponential":
        _require(
            min(values["epsilon_start"], values["epsilon_end"]) > 0,
            "--epsilon-schedule exponential never reaches 0: give a positive --epsilon-end, or choose linear",
        )
    _require(
        values["epsilon_end"] <= values["epsilon_start"],
        f"--epsilon-end {values['epsilon_end']} is above --epsilon-start {values['epsilon_start']}: swap them",
    )
    _require(
        values["replay_capacity"] >= values["global_batch_size"],
        f"--replay-capacity {values['replay_capacity']} is smaller than one --global-batch-size "
        f"{values['global_batch_size']}: keep at least one batch",
    )
    _require(
        values["learning_starts"] <= values["replay_capacity"],
        f"--learning-starts {values['learning_starts']} is beyond --replay-capacity "
        f"{values['replay_capacity']}: that many transitions are never stored; lower the one or raise the other",
    )
    check_learning_starts(config)
    name = values["name"]
    _require(
        name.isprintable(),
        f"--name {name!r} holds characters that cannot be shown: choose another name",
    )
    _require(
        "/" not in name and name not in (".", ".."),
        f"--name {name!r} must be one folder's name: choose the place with --runs-dir",
    )
    for name, registry in (("algorithm", ALGORITHMS), ("network", {"auto": "", **NETWORKS}), ("replay", REPLAYS)):
        if ":" not in values[name]:  # otherwise the user's own
            check_registered(registry, values[name], flag(name))
    _require(
        not (values["double"] and values["algorithm"].startswith("munchausen")),
        f"--double corrects the maximum in a target, and --algorithm {values['algorithm']} has none: leave --double "
        "out",
    )
    _require(
        values["value_min"] < values["value_max"],
        f"--value-min {values['value_min']} is not below --value-max {values['value_max']}: swap them",
    )
    _require(
        values["action_bins"] == 0 or values["action_bins"] >= 2,
        f"--action-bins is {values['action_bins']}: give at least 2, or 0 where actions are Discrete or MultiDiscrete",
    )
    _require(values["atoms"] >= 2, f"--atoms is {values['atoms']}: give at least 2")
    _require(
        values["munchausen_temperature"] > 0,
        f"--munchausen-temperature is {values['munchausen_temperature']}: give a positive number",
    )
    _require(
        values["munchausen_floor"] <= 0,
        f"--munchausen-floor is {values['munchausen_floor']}: give a negative number, or 0 for no bonus",
    )
    if values["network"] != "impala" and ":" not in values["network"]:
        for name, default in (("impala_width", 1), ("layer_norm", False), ("spectral_norm", False)):
            _require(
                values[name] == default,
                f"{flag(name)} is for --network impala, and --network is {values['network']}: give --network impala, "
                f"or leave {flag(name)} out",
            )
    for name, value in PROTOCOLS[values["protocol"]].items():
        _require(
            values[name] == value,
            f"--protocol {values['protocol']} has {flag(name)} {value}, and it is {values[name]}: leave one of the two "
            "out",
        )
    check_strategy(config)
    if values["checkpoint_path"]:
        check_url(values["checkpoint_path"], "--checkpoint-path")
    environment_arguments(config)


def check_learning_starts(config: Config) -> None:
    """Refuses a run that would end before it learns; also called after weak scaling, which delays learning."""
    starts, total = config.replay.learning_starts, config.job.total_env_steps
    _require(
        bool(config.job.resume) or starts < total,
        f"--learning-starts {starts} is not before --total-env-steps {total}: nothing would be learned; lower the one "
        "or raise the other",
    )
    _require(
        bool(config.job.resume) or config.algorithm.n_step == 1 or config.env_steps_before_learning < total,
        f"--n-step {config.algorithm.n_step} in each of {config.environment.num_envs} environments takes "
        f"{config.env_steps_before_learning} env steps, and --total-env-steps is {total}: nothing would be learned; "
        "raise it, or lower --n-step or --num-envs",
    )


def environment_arguments(config: Config) -> dict[str, Any]:
    """Returns the environment's keyword arguments from their JSON, or raises UserError."""
    text = config.environment.env_kwargs
    try:
        arguments = parse_json(text)
    except ValueError as error:
        raise UserError(f"--env-kwargs {text[:200]!r} is not JSON ({error}): write '{{\"key\": value}}'") from None
    _require(isinstance(arguments, dict), f"--env-kwargs {text!r} is not a JSON object: write '{{\"key\": value}}'")
    return arguments


def scale(config: Config, size: int) -> Config:
    """Applies the weak scaling that the configuration asks for; strong scaling changes nothing."""
    rule = config.learner.scaling
    if rule == "strong":
        return config
    values = flatten(config)
    factor = {"weak": 1.0, "weak-sqrt": math.sqrt(size), "weak-linear": float(size)}[rule]
    scaled = {name: values[name] * size for name in _GROWING}
    return replace(config, {**scaled, "learning_rate": config.learner.learning_rate * factor})


@dataclass(frozen=True)
class Shares:
    """One rank's part of the global amounts."""

    num_envs_per_rank: int
    batch_size_per_rank: int
    replay_capacity_per_rank: int


def shares(config: Config, rank: int, size: int) -> Shares:
    """Deals the (already scaled) global amounts out.

    Raises:
      UserError: if a rank would be left with nothing; equal on all ranks.
    """
    check_learning_starts(config)
    for name, value in (
        ("global_batch_size", config.replay.global_batch_size),
        ("num_envs", config.environment.num_envs),
        ("replay_capacity", config.replay.replay_capacity),
    ):
        _require(
            value >= size,
            f"{flag(name)} {value} is less than one for each of {size} ranks: "
            f"give at least {size}, or start at most {value} ranks",
        )
    return Shares(
        num_envs_per_rank=share(config.environment.num_envs, rank, size),
        batch_size_per_rank=share(config.replay.global_batch_size, rank, size),
        replay_capacity_per_rank=share(config.replay.replay_capacity, rank, size),
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
