"""The supported observation and action spaces, and their description for the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np

from hvd_dqn.errors import UserError
from hvd_dqn.transition import TransitionForm


@dataclass(frozen=True)
class Spaces:
    """The spaces of one environment, reduced to what the network needs."""

    observation_shape: tuple[int, ...]
    """Shape of one stored observation; () for Discrete, [n + A] with an action mask behind it."""
    observation_dtype: np.dtype
    """float32 for Boxes of floats, the Box's dtype for Boxes of integers, int32 for Discrete."""
    num_categories: int
    """Number of values of a Discrete observation, which the network encodes as one-hot; 0 for a Box."""
    num_actions: int
    """A. Where an action has several joints: the bins of the joint that has most."""
    joint_bins: tuple[int, ...] = ()
    """Bins of each of J joints, the parts of a MultiDiscrete action; () for one Discrete action."""
    largest_integer: int = 255
    """Upper bound of a Box of integers; 255 where it is larger, or for others."""
    unmasked_shape: tuple[int, ...] | None = None
    """Shape of the observation without its action mask; None if there is no mask."""
    mask_source: str = ""
    """Where action masks come from, "infos" or "observations"; "" if there are none."""
    stacked_frames: int = 1
    """Frames that the last dimension of an observation stacks, newest last; 1 for none."""

    @property
    def masked(self) -> bool:
        """Returns whether a stored observation ends in an action mask."""
        return self.unmasked_shape is not None

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Returns the shape of one action: (), or [J] where it has joints."""
        return (len(self.joint_bins),) if self.joint_bins else ()

    @property
    def valid_bins(self) -> np.ndarray | None:
        """Returns bool [J, A], the bins that each joint has; None where all joints have A, or there are none."""
        if len(set(self.joint_bins)) <= 1:
            return None
        return np.arange(self.num_actions) < np.array(self.joint_bins)[:, None]  # [J, A]

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Returns the shape of one observation as the network takes it; () for Discrete."""
        return self.observation_shape if self.unmasked_shape is None else self.unmasked_shape

    @property
    def transition_form(self) -> TransitionForm:
        """Returns the shapes and dtypes of transitions."""
        return TransitionForm(self.observation_shape, self.observation_dtype, self.action_shape, self.stacked_frames)

    def stacking(self, frames: int) -> Spaces:
        """Returns the spaces with a number of stacked frames; 0 changes nothing.

        Raises:
          UserError: if observations cannot stack that many.
        """
        if frames == 0:
            return self
        channels = self.observation_shape[-1] if self.observation_shape and not self.masked else 1
        if channels % frames:
            fitting = [str(number) for number in range(1, channels + 1) if channels % number == 0]
            raise UserError(
                f"--stacked-frames {frames} does not divide the {channels} channels of observations of shape "
                f"{self.observation_shape}: give {' or '.join(fitting[-4:])}, or 0 to find out"
            )
        return replace(self, stacked_frames=frames)

    def describe(self) -> dict[str, object]:
        """Returns a JSON-ready description, which the ranks compare."""
        return {
            "observation": [list(self.observation_shape), str(self.observation_dtype), self.num_categories],
            "actions": list(self.joint_bins) or self.num_actions,
            "action masks": self.mask_source,
            "stacked frames": self.stacked_frames,
        }


class MaskedSpace(gym.spaces.Box):
    """The space of flat arrays [n + A]: an observation of n numbers, then the mask of A actions."""

    def __init__(self, observation: gym.Space[Any], num_actions: int, source: str) -> None:
        """Describes the arrays.

        Args:
          observation: a supported space.
          num_actions: A.
          source: of the masks, "infos" or "observations".
        """
        if isinstance(observation, gym.spaces.Discrete):
            observation_box = gym.spaces.Box(0, int(observation.n) - 1, (1,), np.int32)
        else:
            assert isinstance(observation, gym.spaces.Box)
            observation_box = observation
        dtype = observation_box.dtype
        low = np.concatenate([observation_box.low.ravel(), np.zeros(num_actions, dtype)])
        high = np.concatenate([observation_box.high.ravel(), np.ones(num_actions, dtype)])
        super().__init__(low, high, dtype=dtype.type)
        self.observation, self.num_actions, self.source = observation, num_actions, source

    def pack(self, observation: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns observations [..., *shape] and masks bool [..., A] as arrays [..., n + A]."""
        flat = np.reshape(observation, (*mask.shape[:-1], -1))
        return np.concatenate([flat, mask], axis=-1, dtype=self.dtype, casting="unsafe")


def is_supported(observation: gym.Space[Any]) -> bool:
    """Returns whether a network can take a single environment's observations."""
    if isinstance(observation, gym.spaces.Discrete):
        return bool(observation.start == 0)
    return isinstance(observation, gym.spaces.Box) and bool(observation.shape)


def read_spaces(env_id: str, observation: gym.Space, action: gym.Space) -> Spaces:
    """Translates the Gymnasium spaces of a single environment.

    Raises:
      UserError: unless actions are Discrete or MultiDiscrete, and observations are Box or Discrete.
    """
    num_actions, joint_bins = _read_actions(env_id, action)
    if isinstance(observation, MaskedSpace):
        alone = read_spaces(env_id, observation.observation, action)
        return replace(
            alone,
            observation_shape=tuple(observation.shape),
            unmasked_shape=alone.observation_shape,
            mask_source=observation.source,
        )
    if isinstance(observation, gym.spaces.Discrete) and observation.start == 0:
        return Spaces((), np.dtype(np.int32), int(observation.n), num_actions, joint_bins)
    if isinstance(observation, gym.spaces.Box) and observation.shape:
        real = np.issubdtype(observation.dtype, np.floating)
        dtype = np.dtype(np.float32) if real else np.dtype(observation.dtype)
        largest = int(observation.high.max()) if np.issubdtype(dtype, np.integer) else 255
        largest = largest if 0 < largest < 255 else 255
        return Spaces(tuple(observation.shape), dtype, 0, num_actions, joint_bins, largest_integer=largest)
    raise UserError(
        f"{env_id} has the observation space {observation}: supported are Box (vectors and images) and Discrete "
        "counting from 0, and for Discrete actions a Dict of one of them and 'action_mask'. Flatten others with "
        "gymnasium.wrappers.FlattenObservation in an environment of your own, registered and named as "
        "--env your_module:YourEnv-v0."
    )


def _read_actions(env_id: str, action: gym.Space[Any]) -> tuple[int, tuple[int, ...]]:
    """Returns the number of actions, and the bins of each joint; see `Spaces`."""
    if isinstance(action, gym.spaces.Discrete) and action.start == 0:
        return int(action.n), ()
    one_row = isinstance(action, gym.spaces.MultiDiscrete) and action.nvec.ndim == 1 and action.nvec.size > 0
    if one_row and not np.any(action.start):
        return int(action.nvec.max()), tuple(int(bins) for bins in action.nvec)
    if isinstance(action, gym.spaces.Box):
        raise UserError(
            f"{env_id} has the action space {action}, whose numbers have to be divided into bins: give --action-bins 2 "
            "(or more) with --algorithm decqn"
        )
    raise UserError(
        f"{env_id} has the action space {action}: supported are Discrete and a row of MultiDiscrete actions, which "
        "count from 0, and Box with --action-bins. Choose another environment, or wrap this one."
    )
