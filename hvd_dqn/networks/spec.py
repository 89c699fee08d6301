"""The specification that every network gets, and the choice of a network for an observation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hvd_dqn.errors import UserError

SMALLEST_CNN_IMAGE = 36
"""Pixels per side below which the Nature CNN's three convolutions leave nothing."""


class NetworkSpec(NamedTuple):
    """Observation, outputs and sizes of a Q-network."""

    observation_shape: tuple[int, ...]  # of one observation, channels last; () for a category
    observation_dtype: np.dtype  # integer images and vectors are scaled from 0..255 to 0..1
    num_categories: int  # values of a Discrete observation, one-hot encoded; 0 for others
    num_actions: int  # A
    hidden_sizes: tuple[int, ...]  # units of the hidden layers behind the torso, where they can be chosen
    seed: int  # of the initial weights
    outputs_per_action: int = 1  # Z
    precision: str = "float32"  # or bfloat16, float16: of the layers before the last; weights are float32 always

    @property
    def policy(self) -> str:
        """Returns Keras' name of the precision."""
        return self.precision if self.precision == "float32" else f"mixed_{self.precision}"

    @property
    def input_scale(self) -> float:
        """Returns what observations are multiplied by: 1/255 for integers."""
        return 1.0 / 255.0 if np.issubdtype(self.observation_dtype, np.integer) else 1.0


def layer_name(kind: str, number: int) -> str:
    """Returns a layer's name, which Keras would otherwise count up over all networks of a process."""
    return f"{kind}_{number}" if number else kind


def flattens_images(chosen: str, name: str, observation_shape: tuple[int, ...]) -> bool:
    """Returns whether "auto" chose an MLP for what looks like images of floats."""
    return name == "auto" and chosen == "mlp" and len(observation_shape) == 3


def choose_network(name: str, observation_shape: tuple[int, ...], observation_dtype: np.dtype) -> str:
    """Resolves "auto": cnn for integer observations with two or three dimensions, else mlp.

    Raises:
      UserError: if the CNN is asked for (or chosen) and the observation is no image that it can take.
    """
    if name == "auto":
        image = len(observation_shape) in (2, 3) and np.issubdtype(observation_dtype, np.integer)
        name = "cnn" if image else "mlp"
    if name == "cnn":
        if len(observation_shape) not in (2, 3):
            raise UserError(
                f"--network cnn needs images [height, width(, channels)], not {observation_shape}: use --network mlp"
            )
        if min(observation_shape[:2]) < SMALLEST_CNN_IMAGE:
            raise UserError(
                f"observations of shape {observation_shape} are too small for the CNN (at least "
                f"{SMALLEST_CNN_IMAGE} x {SMALLEST_CNN_IMAGE} pixels): use --network mlp, or resize them in a wrapper"
            )
    return name
