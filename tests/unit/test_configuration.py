"""Laws of the configuration: flat names, presets, validation, scaling, shares."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
from typing import Any

import pytest

from hvd_dqn import config as config_module
from hvd_dqn.config import Config, field_names, flatten, replace
from hvd_dqn.errors import UserError
from hvd_dqn.presets import PRESETS, PROTOCOLS
from hvd_dqn.validation import environment_arguments, flag, scale, shares, validate

DEFAULTS = flatten(Config())
NUMBERS = [name for name, value in DEFAULTS.items() if type(value) in (int, float)]
FLOATS = [name for name, value in DEFAULTS.items() if type(value) is float]


def _changed(**flat: Any) -> Config:
    return replace(Config(), flat)


def test_the_defaults_are_valid_and_train_cartpole() -> None:
    validate(Config())
    assert DEFAULTS["env"] == "CartPole-v1"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_names_real_fields(preset: str) -> None:
    assert set(PRESETS[preset]) <= set(DEFAULTS)
    validate(replace(Config(), PRESETS[preset]))
    for name, value in PRESETS[preset].items():
        assert type(value) is type(replace(Config(), {}).__getattribute__(_section(name)).__getattribute__(name)), name


def _section(name: str) -> str:
    return next(s.name for s in dataclasses.fields(Config) if hasattr(getattr(Config(), s.name), name))


def test_field_names_are_unique_over_the_sections() -> None:
    names = [f.name for s in dataclasses.fields(Config) for f in dataclasses.fields(getattr(Config(), s.name))]
    assert len(names) == len(set(names))
    assert names == field_names()
    assert not {"config", "preset"} & set(names)


def test_flat_form_goes_through_json_and_back() -> None:
    flat = json.loads(json.dumps(flatten(_changed(hidden_sizes=(7,), seed=3))))
    flat["hidden_sizes"] = tuple(flat["hidden_sizes"])
    assert replace(Config(), flat) == _changed(hidden_sizes=(7,), seed=3)


def test_replacing_leaves_the_original_and_the_other_fields() -> None:
    original = Config()
    changed = replace(original, {"gamma": 0.5})
    assert original == Config()
    assert {k for k, v in flatten(changed).items() if v != DEFAULTS[k]} == {"gamma"}


def test_every_field_has_a_docstring() -> None:
    """The command line's help is made of them."""
    tree = ast.parse(inspect.getsource(config_module))
    for section in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name != "Config"):
        for field, after in zip(section.body, [*section.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{section.name}.{ast.unparse(field.target)} has no docstring"


ANY_SIGN = {"value_min", "value_max", "munchausen_floor"}
NO_LIMIT_BELOW_0 = {"max_staleness"}


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - ANY_SIGN - NO_LIMIT_BELOW_0))
def test_negative_amounts_are_refused(name: str) -> None:
    kind = type(DEFAULTS[name])
    with pytest.raises(UserError, match=f"^{flag(name)} is -1"):
        validate(_changed(**{name: kind(-1)}))


ZERO_MEANS_OFF_OR_NONE = {
    "action_bins",
    "snapshot_period",
    "seed",
    "threads_per_rank",
    "stall_timeout_seconds",
    "time_reserve_seconds",
    "epsilon_decay_env_steps",
    "max_grad_norm",
    "skip_nonfinite",
    "evaluation_period",
    "evaluation_step_limit",
    "record_period",
    "evaluation_epsilon",
    "epsilon_end",
    "epsilon_decay_per_episode",
    "gamma",
    "policy_lag",
    "munchausen_bonus",
    "learning_rate_end",
    "optimizer_epsilon",
    "stacked_frames",
    "priority_exponent",
    "importance_exponent",
    "importance_rise_env_steps",
    *ANY_SIGN,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_zero_is_refused_unless_it_means_something(name: str) -> None:
    zero = _changed(**{name: type(DEFAULTS[name])(0)})
    if name in ZERO_MEANS_OFF_OR_NONE:
        validate(zero)
    else:
        with pytest.raises(UserError, match=r"--"):
            validate(zero)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", FLOATS)
def test_numbers_that_are_not_finite_are_refused(name: str, value: float) -> None:
    """--max-grad-norm inf would scale every gradient by inf / inf."""
    with pytest.raises(UserError, match=flag(name)):
        validate(_changed(**{name: value}))


@pytest.mark.parametrize(
    "name", ["epsilon_start", "epsilon_end", "gamma", "epsilon_decay_per_episode", "munchausen_bonus"]
)
def test_probabilities_end_at_one(name: str) -> None:
    validate(_changed(**{"epsilon_start": 1.0, name: 1.0}))
    with pytest.raises(UserError, match=f"^{flag(name)} is 1.01: give a number from 0 to 1"):
        validate(_changed(**{name: 1.01}))


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"hidden_sizes": (64, 0)}, "--hidden-sizes"),
        ({"hidden_sizes": (-1,)}, "--hidden-sizes"),
        ({"epsilon_schedule": "exponential", "epsilon_end": 0.0}, "never reaches 0"),
        ({"epsilon_start": 0.1, "epsilon_end": 0.2}, "swap them"),
        ({"replay_capacity": 100, "learning_starts": 50, "global_batch_size": 128}, "keep at least one batch"),
        ({"replay_capacity": 500, "learning_starts": 501}, "lower the one or raise the other"),
        ({"name": "a/b"}, "--runs-dir"),
        ({"name": ".."}, "--runs-dir"),
        ({"env_kwargs": "{x}"}, "is not JSON"),
        ({"env_kwargs": "[1]"}, "not a JSON object"),
    ],
)
def test_contradictions_are_refused_with_the_remedy(flat: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        validate(_changed(**flat))


@pytest.mark.parametrize(
    "flat",
    [
        {"replay_capacity": 128, "learning_starts": 128, "global_batch_size": 128},
        {"hidden_sizes": ()},
        {"epsilon_start": 0.2, "epsilon_end": 0.2},
        {"epsilon_schedule": "linear", "epsilon_end": 0.0},
        {"env_kwargs": '{"a": [1]}'},
    ],
)
def test_the_limits_themselves_are_allowed(flat: dict[str, Any]) -> None:
    validate(_changed(**flat))


def test_environment_arguments_are_read_from_json() -> None:
    assert environment_arguments(_changed(env_kwargs='{"a": [1, null]}')) == {"a": [1, None]}


def test_strong_scaling_changes_nothing() -> None:
    assert scale(Config(), 8) == Config()


@pytest.mark.parametrize(("rule", "factor"), [("weak", 1.0), ("weak-sqrt", 2.0), ("weak-linear", 4.0)])
def test_weak_scaling_multiplies_the_amounts_and_the_learning_rate_by_its_rule(rule: str, factor: float) -> None:
    config = _changed(scaling=rule)
    scaled = flatten(scale(config, 4))
    before = flatten(config)
    growing = {"num_envs", "global_batch_size", "replay_capacity", "learning_starts", "train_period"}
    for name, value in before.items():
        if name in growing:
            assert scaled[name] == 4 * value
        elif name == "learning_rate":
            assert scaled[name] == pytest.approx(factor * value)
        else:
            assert scaled[name] == value, name
    assert scale(config, 1) == config
    validate(scale(config, 4))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_of_all_ranks_make_up_the_global_amounts(size: int) -> None:
    parts = [shares(Config(), rank, size) for rank in range(size)]
    assert sum(p.num_envs_per_rank for p in parts) == DEFAULTS["num_envs"]
    assert sum(p.batch_size_per_rank for p in parts) == DEFAULTS["global_batch_size"]
    assert sum(p.replay_capacity_per_rank for p in parts) == DEFAULTS["replay_capacity"]


def test_a_run_that_would_end_before_it_learns_is_refused_also_after_weak_scaling() -> None:
    with pytest.raises(UserError, match="--learning-starts 3000 is not before --total-env-steps 3000"):
        validate(_changed(learning_starts=3000, total_env_steps=3000))
    config = _changed(learning_starts=1000, total_env_steps=3000, scaling="weak")
    shares(scale(config, 2), 0, 2)
    with pytest.raises(UserError, match="--learning-starts 4000 is not before"):
        shares(scale(config, 4), 0, 4)
    with pytest.raises(UserError, match="--n-step 100 in each of 30 environments takes 3000 env steps"):
        validate(_changed(total_env_steps=3000, n_step=100, num_envs=30))


@pytest.mark.parametrize("name", ["num_envs", "global_batch_size", "replay_capacity"])
def test_more_ranks_than_there_is_to_share_are_refused_on_all_alike(name: str) -> None:
    config = _changed(**{"num_envs": 100, "global_batch_size": 100, "replay_capacity": 100, name: 3})
    shares(config, 2, 3)
    messages = set()
    for rank in range(4):
        with pytest.raises(
            UserError, match=f"{flag(name)} 3 .* 4 ranks: give at least 4, or start at most 3"
        ) as caught:
            shares(config, rank, 4)
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithm": "munchausen", "double": True}, "--algorithm munchausen has none: leave --double out"),
        ({"algorithm": "munchausen-iqn", "double": True}, "--algorithm munchausen-iqn has none: leave --double out"),
        ({"value_min": 3.0, "value_max": 3.0}, "--value-min 3.0 is not below --value-max 3.0"),
        ({"atoms": 1}, "--atoms is 1: give at least 2"),
        ({"munchausen_floor": 0.5}, "give a negative number, or 0 for no bonus"),
        ({"layer_norm": True}, "--layer-norm is for --network impala, and --network is auto"),
        ({"network": "cnn", "spectral_norm": True}, "give --network impala, or leave --spectral-norm out"),
        ({"network": "mlp", "impala_width": 2}, "--impala-width is for --network impala"),
        ({"protocol": "nature"}, "--protocol nature has --clip-rewards True, and it is False"),
        (
            {**PROTOCOLS["dopamine"], "protocol": "dopamine", "evaluation_epsilon": 0.0},
            "--protocol dopamine has --evaluation-epsilon 0.001, and it is 0.0",
        ),
    ],
)
def test_settings_of_algorithms_that_cannot_work_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        validate(_changed(**changes))
