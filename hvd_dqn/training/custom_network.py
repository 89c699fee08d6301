"""A network of the user's: --network module:function or ./file.py:function."""

from __future__ import annotations

from collections.abc import Callable

import keras

from hvd_dqn.envs.find import import_place
from hvd_dqn.envs.foreign import brief, where
from hvd_dqn.errors import UserError, did_you_mean
from hvd_dqn.networks.spec import NetworkSpec

EXAMPLE = "it must take a NetworkSpec and return a keras.Model, as hvd_dqn/networks/mlp.py does"


def build_custom(name: str, spec: NetworkSpec) -> keras.Model:
    """Imports the function and builds the network.

    Args:
      name: `module:function` or `./file.py:function`.
      spec: what the network must fit.

    Raises:
      UserError: if there is no such function, it raises anything, or its model has other inputs or outputs.
    """
    place, _, function = name.rpartition(":")
    module = import_place(place, f"--network {name}", "function")
    build: Callable[[NetworkSpec], keras.Model] | None = getattr(module, function, None)
    if not callable(build):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"--network {name}: {place} has no function {function!r}{did_you_mean(function, known)}")
    try:
        model = build(spec)
    except BaseException as error:  # the user's code may even exit
        raise UserError(f"--network {name} raised {brief(error)}{where(error)}") from None
    if not isinstance(model, keras.Model):
        raise UserError(f"--network {name} returned a {type(model).__name__}: {EXAMPLE}")
    _check(name, model, spec)
    return model


def _check(name: str, model: keras.Model, spec: NetworkSpec) -> None:
    several = (spec.outputs_per_action,) if spec.outputs_per_action > 1 else ()
    outputs = (None, spec.num_actions, *((None,) if spec.takes_fractions else several))
    wanted_inputs = [(None, *spec.observation_shape), *([(None, None)] if spec.takes_fractions else [])]
    inputs = [tuple(part.shape) for part in model.inputs]
    if inputs != wanted_inputs:
        raise UserError(f"--network {name} has inputs of shape {inputs}, and {wanted_inputs} are needed: {EXAMPLE}")
    if len(model.outputs) != 1 or tuple(model.outputs[0].shape) != outputs:
        shapes = [tuple(part.shape) for part in model.outputs]
        raise UserError(
            f"--network {name} has outputs of shape {shapes}, and one of shape {outputs} is needed for "
            f"{spec.num_actions} actions: {EXAMPLE}"
        )
    if not model.trainable_variables:
        raise UserError(f"--network {name} has no weights that can be trained")
