"""The specification that every network gets, and the choice of a network for an observation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hvd_dqn.errors import UserError

SMALLEST_CNN_IMAGE = 36
"""Pixels per side below which the Nature CNN's three convolutions leave nothing."""
_SMALLEST = {"cnn": SMALLEST_CNN_IMAGE, "minatar": 3, "impala": 3}
"""Pixels per side that each convolutional network needs; "auto" takes the first that the image is large enough for."""


class NetworkSpec(NamedTuple):
    """Observation, outputs and sizes of a Q-network."""

    observation_shape: tuple[int, ...]  # of one observation, channels last; () for a category
    observation_dtype: np.dtype  # integer images and vectors are scaled from 0..255 to 0..1
    num_categories: int  # values of a Discrete observation, one-hot encoded; 0 for others
    num_actions: int  # A; with joints, the most bins of a joint
    hidden_sizes: tuple[int, ...]  # units of the hidden layers behind the torso, where they can be chosen
    seed: int  # of the initial weights
    outputs_per_action: int = 1  # Z
    dueling: bool = False  # a stream for the state's value and one for the actions' advantages
    takes_fractions: bool = False  # the outputs are quantiles at fractions that are a second input
    precision: str = "float32"  # or bfloat16, float16: of the layers before the last; weights are float32 always
    largest_integer: int = 255  # of an integer observation
    impala_width: int = 1  # factor of impala's channels
    layer_norm: bool = False  # impala: normalise the features of stems and of the last hidden layer
    spectral_norm: bool = False  # impala: divide the residual blocks' kernels by their largest singular value
    joints: int = 0  # J, parts of an action, each with its own A outputs: [B, J, A]; 0 for one Discrete action

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
    """Resolves "auto" for images of integers or flags: cnn, or minatar where they are small. For others: mlp.

    Raises:
      UserError: if a convolutional network is asked for and the observation is no image that it can take.
    """
    image = len(observation_shape) in (2, 3)
    side = min(observation_shape[:2]) if image else 0
    if name == "auto":
        drawn = np.issubdtype(observation_dtype, np.integer) or observation_dtype == np.bool_
        name = next((kind for kind, smallest in _SMALLEST.items() if drawn and side >= smallest), "mlp")
    if name not in _SMALLEST:
        return name
    if not image:
        raise UserError(
            f"--network {name} needs images [height, width(, channels)], not {observation_shape}: use --network mlp"
        )
    if side < _SMALLEST[name]:
        raise UserError(
            f"observations of shape {observation_shape} are too small for --network {name} (at least "
            f"{_SMALLEST[name]} x {_SMALLEST[name]} pixels): use --network auto, or resize them in a wrapper"
        )
    return name
