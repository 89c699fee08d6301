"""States of single environments that offer `get_state` and `set_state`, with those of the wrappers around them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import gymnasium as gym
from gymnasium import wrappers

from hvd_dqn.envs.action_bins import BinnedActions
from hvd_dqn.envs.channels_last import ChannelsLast
from hvd_dqn.envs.guard import Guard
from hvd_dqn.envs.masks import DictMask, PackedMask
from hvd_dqn.errors import UserError
from hvd_dqn.packing import pack, unpack

_STATISTICS = ("mean", "var", "count")
_LASTING: dict[type, tuple[str, ...]] = {
    wrappers.NormalizeObservation: tuple(f"obs_rms.{name}" for name in _STATISTICS),
    wrappers.NormalizeReward: ("discounted_reward", *(f"return_rms.{name}" for name in _STATISTICS)),
}
"""What each known wrapper keeps from one episode to the next."""
_ATTRIBUTES: dict[type, tuple[str, ...]] = {
    **_LASTING,
    wrappers.TimeLimit: ("_elapsed_steps",),
    wrappers.RecordEpisodeStatistics: ("episode_returns", "episode_lengths"),
    **dict.fromkeys((wrappers.OrderEnforcing, wrappers.PassiveEnvChecker, Guard, ChannelsLast), ()),
    **dict.fromkeys((DictMask, PackedMask, BinnedActions), ()),
}
"""What each known wrapper keeps of an open episode."""
_STATELESS = (wrappers.TransformObservation, wrappers.TransformReward, wrappers.TransformAction)


def offers_state(env: gym.Env[Any, Any]) -> bool:
    """Returns whether the environment's state can be saved and put back, with the state of every wrapper around it.

    Of an environment in a wrapper that is not known and offers no state either, the actions must be replayed.
    """
    *around, inner = _layers(env)
    return has_own_state(inner) and all(
        has_own_state(layer) or type(layer) in _ATTRIBUTES or isinstance(layer, _STATELESS) for layer in around
    )


def save_state(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """Returns a copy of the state of an environment that offers one, as plain values and arrays.

    Raises:
      UserError: if the environment gives anything else.
    """
    generator = getattr(env.unwrapped, "_np_random", None)
    state = {
        "layers": [_state_of(layer) for layer in _layers(env)],
        "generator": generator.bit_generator.state if generator is not None else None,
    }
    copied: dict[str, Any] = copied_state(state, env.unwrapped)
    return copied


def copied_state(state: Any, env: Any) -> Any:
    """Returns a copy of what an environment's `get_state` gave.

    Raises:
      UserError: if it is not made of plain values and arrays.
    """
    try:
        return unpack(pack(state, "get_state()"))
    except TypeError as error:
        raise UserError(
            f"the environment {env} cannot be saved: {error}. Let get_state return numbers, text and NumPy "
            "arrays in lists, tuples and dictionaries, or remove it: the actions are then replayed"
        ) from None


def is_saved_state(state: Any) -> bool:
    """Returns whether a state is of `save_state`, and not of a native vector environment."""
    return isinstance(state, dict) and set(state) == {"layers", "generator"}


def load_state(env: gym.Env[Any, Any], state: dict[str, Any]) -> None:
    """Puts back what `save_state` returned; the environment has been reset."""
    if state["generator"] is not None:
        env.unwrapped.np_random.bit_generator.state = state["generator"]
    for layer, own in zip(_layers(env), state["layers"], strict=True):
        if has_own_state(layer):
            layer.set_state(own)
        else:
            _set_attributes(layer, own)


def _layers(env: gym.Env[Any, Any]) -> Iterator[Any]:
    """Yields the wrappers, the outermost first, then the environment."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def has_own_state(layer: Any) -> bool:
    """Returns whether one layer, or a vector environment, has a get_state() and a set_state(state)."""
    try:
        inspect.signature(layer.get_state).bind()
        inspect.signature(layer.set_state).bind(None)
    except Exception:  # a property of the environment may raise anything
        return False
    return True


def _state_of(layer: Any) -> Any:
    if has_own_state(layer):
        return layer.get_state()
    return _attributes(layer, _ATTRIBUTES)


def lasting_state(env: gym.Env[Any, Any]) -> list[dict[str, Any]]:
    """Returns copies of what the known wrappers keep from one episode to the next, by layer; [] if there is nothing."""
    states = [_attributes(layer, _LASTING) for layer in _layers(env)]
    return copy.deepcopy(states) if any(states) else []


def load_lasting_state(env: gym.Env[Any, Any], states: list[dict[str, Any]]) -> None:
    """Puts back what `lasting_state` returned, [] for nothing."""
    for layer, own in zip(_layers(env), copy.deepcopy(states), strict=False):
        known = _LASTING.get(type(layer), ())
        _set_attributes(layer, {name: value for name, value in own.items() if name in known})


def _attributes(layer: Any, names: dict[type, tuple[str, ...]]) -> dict[str, Any]:
    return {name: attrgetter(name)(layer) for name in names.get(type(layer), ())}


def _set_attributes(layer: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        *owner, last = name.split(".")
        setattr(attrgetter(*owner)(layer) if owner else layer, last, value)
