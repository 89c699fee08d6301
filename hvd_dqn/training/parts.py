"""The algorithm, network and replay that the configuration names: registered ones, and the user's own.

One of the user's own is `module:name` or `./file.py:name`. Whatever goes wrong in it is a UserError.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from hvd_dqn.algorithms.base import Algorithm
from hvd_dqn.config import Config, flatten
from hvd_dqn.envs.find import import_place
from hvd_dqn.envs.foreign import brief, where
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import UserError, did_you_mean
from hvd_dqn.networks.spec import NetworkSpec
from hvd_dqn.registry import ALGORITHMS, NETWORKS, REPLAYS, load

_ALGORITHM = ("outputs_per_action", "takes_fractions", "has_value_range", "action_values", "loss")
"""What an algorithm must have; see `Algorithm`."""
_NETWORK_EXAMPLE = "it must take a NetworkSpec and return a keras.Model, as hvd_dqn/networks/mlp.py does"


def configured(factory: Callable[..., Any], config: Config, **given: Any) -> Any:
    """Builds something registered from those fields of the configuration that its parameters name.

    Args:
      factory: a class or function.
      config: the configuration.
      **given: arguments that are no configuration; those that the factory does not name are left out.
    """
    known = flatten(config) | given
    names = inspect.signature(factory).parameters
    return factory(**{name: known[name] for name in names if name in known})


def make_algorithm(config: Config) -> Algorithm:
    """Builds the algorithm.

    Raises:
      UserError: if it is the user's own and there is no such class, it raises anything, or it is no `Algorithm`.
    """
    name = config.algorithm.algorithm
    factory = _find(ALGORITHMS, name, "--algorithm")
    if name in ALGORITHMS:
        return configured(factory, config)
    algorithm: Algorithm = _call(f"--algorithm {name}", lambda: configured(factory, config))
    missing = [attribute for attribute in _ALGORITHM if not hasattr(algorithm, attribute)]
    if missing:
        raise UserError(
            f"--algorithm {name} lacks {', '.join(missing)}: see the class Algorithm in hvd_dqn/algorithms/base.py"
        )
    algorithm.native_rule = None  # one that inherits from DQN is another rule than the native learner's
    return algorithm


def find_replay(config: Config) -> Any:
    """Returns the class of the replay.

    Raises:
      UserError: if it is the user's own and there is no such class, or it is no `Replay`.
    """
    name = config.replay.replay
    found = _find(REPLAYS, name, "--replay")
    if not isinstance(getattr(found, "prioritized", None), bool):
        raise UserError(
            f"--replay {name} lacks prioritized, True or False: see the class Replay in hvd_dqn/replay/base.py"
        )
    return found


def build_model(name: str, spec: NetworkSpec) -> keras.Model:
    """Builds a network.

    Args:
      name: as registered, or of the user's own function.
      spec: what the network must fit.

    Raises:
      UserError: if there is no such function, it raises anything, or its model has other inputs or outputs.
    """
    build: Callable[[NetworkSpec], keras.Model] = _find(NETWORKS, name, "--network")
    if name in NETWORKS:
        return build(spec)
    model = _call(f"--network {name}", lambda: build(spec))
    if not isinstance(model, keras.Model):
        raise UserError(f"--network {name} returned a {type(model).__name__}: {_NETWORK_EXAMPLE}")
    _check(name, model, spec)
    return model


def check_parts(config: Config, spaces: Spaces) -> tuple[Algorithm, dict[str, str]]:
    """Returns the algorithm, and digests of the files of the user's own parts, which all ranks must have alike.

    Raises:
      UserError: if a part cannot be found, or is none, or the algorithm does not learn such actions.
    """
    find_replay(config)
    algorithm = make_algorithm(config)
    name, env = config.algorithm.algorithm, config.environment.env
    takes_joints = getattr(algorithm, "takes_joints", False)
    if spaces.joint_bins and not takes_joints:
        raise UserError(
            f"--algorithm {name} learns Discrete actions, and those of {env} have {len(spaces.joint_bins)} joints: "
            "give --algorithm decqn"
        )
    if takes_joints and not spaces.joint_bins:
        raise UserError(
            f"--algorithm {name} learns MultiDiscrete actions, and {env} has {spaces.num_actions} Discrete ones: give "
            "--algorithm dqn, which is the same for one joint"
        )
    return algorithm, _own_code(config)


def _own_code(config: Config) -> dict[str, str]:
    named = (
        ("--algorithm", ALGORITHMS, config.algorithm.algorithm),
        ("--network", NETWORKS | {"auto": ""}, config.network.network),
        ("--replay", REPLAYS, config.replay.replay),
    )
    found = {}
    for flag, registry, name in named:
        if name not in registry:
            file = inspect.getsourcefile(inspect.unwrap(_find(registry, name, flag)))
            found[f"code of {flag}"] = hashlib.blake2b(Path(file or "").read_bytes(), digest_size=8).hexdigest()
    return found


def _find(registry: dict[str, str], name: str, flag: str) -> Any:
    """Returns what a name stands for.

    Raises:
      UserError: if it is the user's own and there is none.
    """
    if name in registry:
        return load(registry, name)
    place, _, attribute = name.rpartition(":")
    kind = "function" if flag == "--network" else "class"
    module = import_place(place, f"{flag} {name}", kind)
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{flag} {name}: {place} has no {kind} {attribute!r}{did_you_mean(attribute, known)}")
    return found


def _call(what: str, call: Callable[[], Any]) -> Any:
    """Calls the user's code, which may even exit."""
    try:
        return call()
    except BaseException as error:
        raise UserError(f"{what} raised {brief(error)}{where(error)}") from None


def _check(name: str, model: keras.Model, spec: NetworkSpec) -> None:
    several = (spec.outputs_per_action,) if spec.outputs_per_action > 1 else ()
    joints = (spec.joints,) if spec.joints else ()
    outputs = (None, *joints, spec.num_actions, *((None,) if spec.takes_fractions else several))
    wanted_inputs = [(None, *spec.observation_shape), *([(None, None)] if spec.takes_fractions else [])]
    inputs = [tuple(part.shape) for part in model.inputs]
    if inputs != wanted_inputs:
        raise UserError(
            f"--network {name} has inputs of shape {inputs}, and {wanted_inputs} are needed: {_NETWORK_EXAMPLE}"
        )
    if len(model.outputs) != 1 or tuple(model.outputs[0].shape) != outputs:
        shapes = [tuple(part.shape) for part in model.outputs]
        raise UserError(
            f"--network {name} has outputs of shape {shapes}, and one of shape {outputs} is needed for "
            f"{spec.num_actions} actions: {_NETWORK_EXAMPLE}"
        )
    if not model.trainable_variables:
        raise UserError(f"--network {name} has no weights that can be trained")
