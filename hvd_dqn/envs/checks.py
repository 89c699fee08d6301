"""Checks of observations and rewards where they enter, so that a broken environment cannot corrupt the weights."""

from __future__ import annotations

import contextlib
from typing import Any

import gymnasium as gym
import numpy as np

LARGEST = float(np.finfo(np.float32).max)


class Unfit(Exception):
    """A value that an environment must not return."""

    def __init__(self, what: str, why: str, env: int | None = None) -> None:
        """Takes the value in words, what is wrong with it, and which member of a vector environment returned it."""
        super().__init__(what, why)
        self.what, self.why, self.env = what, why, env

    def of(self, env: int) -> Unfit:
        """Returns the same of a member of a vector environment."""
        return Unfit(self.what, self.why, env)


class ObservationCheck:
    """Checks observations against their space, and casts those of a related dtype."""

    def __init__(self, space: gym.Space[Any], num_envs: int | None = None) -> None:
        """Takes the space of one observation.

        Args:
          space: a Box or Discrete.
          num_envs: E of observations [E, ...] of a vector environment; None for single ones.
        """
        own = tuple(space.shape or ())
        self.shape = own if num_envs is None else (num_envs, *own)
        self._dtype = np.dtype(space.dtype)
        self._real = self._dtype.kind == "f"
        self._categories = int(space.n) if isinstance(space, gym.spaces.Discrete) else None

    def __call__(self, observation: Any) -> Any:
        """Returns the observation in its space's dtype.

        Raises:
          Unfit: if it is of another shape or kind, not finite as float32, or beyond its categories.
        """
        if not (
            type(observation) is np.ndarray and observation.dtype == self._dtype and observation.shape == self.shape
        ):
            observation = self._cast(observation)
        if self._real and not finite(observation):
            raise Unfit("a non-finite observation", str(observation.ravel()[:8]))
        if self._categories is not None and not np.all((observation >= 0) & (observation < self._categories)):
            raise Unfit(f"the observation {observation}", f"its observation space is 0 to {self._categories - 1}")
        return observation

    def _cast(self, observation: Any) -> np.ndarray:
        try:
            array = np.asarray(observation)
        except Exception:  # rows of unequal length, or an object whose own conversion fails
            raise Unfit(f"a {type(observation).__name__}", "an observation must be an array") from None
        if array.shape != self.shape:
            raise Unfit(f"an observation of shape {array.shape}", f"its observation space says {self.shape}")
        if not np.can_cast(array.dtype, self._dtype, "same_kind"):
            raise Unfit(f"an observation of dtype {array.dtype}", f"its observation space says {self._dtype}")
        with np.errstate(over="ignore"):
            cast = array.astype(self._dtype)
        if not self._real and not np.array_equal(cast, array):
            raise Unfit(f"the observation {array.ravel()[:8]}", f"its observation space says {self._dtype}")
        return cast


class VectorObservationCheck:
    """Checks the observations of a vector environment, and names the member whose own is unfit."""

    def __init__(self, space: gym.Space[Any], num_envs: int) -> None:
        """Takes the space of one observation, and the number E of environments."""
        self._check = ObservationCheck(space, num_envs)
        self._check_one = ObservationCheck(space)

    def __call__(self, observation: Any) -> np.ndarray:
        """Returns the observations [E, ...] in their space's dtype.

        Raises:
          Unfit: see `ObservationCheck`.
        """
        try:
            checked: np.ndarray = self._check(observation)
        except Unfit:
            if getattr(observation, "shape", None) == self._check.shape:
                for env, one in enumerate(observation):
                    self.one(env, one)
            raise
        return checked

    def one(self, env: int, observation: Any) -> Any:
        """Returns one member's observation in its space's dtype.

        Raises:
          Unfit: see `ObservationCheck`.
        """
        try:
            return self._check_one(observation)
        except Unfit as unfit:
            raise unfit.of(env) from None


def checked_mask(mask: Any, num_actions: int, ended: bool) -> np.ndarray:
    """Returns which actions are valid, bool [A].

    Args:
      mask: A numbers, 0 or 1; None for none.
      num_actions: A.
      ended: whether no action follows, as the episode has terminated: all are valid then if the mask has no valid one.

    Raises:
      Unfit: if the mask is missing, of another length, has other values or allows no action.
    """
    if mask is None and not ended:
        raise Unfit("no action mask", "its first infos had one, and every state that an action follows needs one")
    every = np.ones(num_actions, np.bool_)
    try:
        array = every if mask is None else np.asarray(mask)
    except Exception:  # rows of unequal length, or an object whose own conversion fails
        raise Unfit(f"a {type(mask).__name__} as action mask", "it must be an array") from None
    if array.shape != (num_actions,):
        raise Unfit(f"an action mask of shape {array.shape}", f"it has {num_actions} actions")
    valid: np.ndarray = array == 1
    if not (valid | (array == 0)).all():
        raise Unfit(f"the action mask {array[:8]}", "1 stands for an action that is valid, 0 for others")
    if valid.any():
        return valid
    if not ended:
        raise Unfit("an action mask of zeros", "an action must be valid wherever the episode has not terminated")
    return every


def checked_reward(reward: Any) -> float:
    """Returns one reward as a float.

    Raises:
      Unfit: if it is no number, or not finite as float32.
    """
    try:
        value = float(reward)
    except Exception:
        raise Unfit(f"a reward of type {type(reward).__name__}", "rewards must be numbers") from None
    if not abs(value) <= LARGEST:
        raise Unfit(f"reward {value}", "rewards must be finite, as float32")
    return value


def checked_picture(picture: Any) -> np.ndarray:
    """Returns a rendered picture, uint8 [H, W, 3].

    Raises:
      Unfit: if it is something else.
    """
    if not (
        isinstance(picture, np.ndarray)
        and (picture.dtype, picture.ndim) == (np.uint8, 3)
        and picture.shape[2] == 3
        and picture.size > 0
    ):
        what = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else f"a {type(picture).__name__}"
        raise Unfit(f"{what} from render()", "a picture must be uint8 [height, width, 3]")
    return picture


def checked_flag(flag: Any) -> bool:
    """Returns whether an episode is over.

    Raises:
      Unfit: if the value is neither true nor false: a text, several values or not a number.
    """
    if flag is None or isinstance(flag, np.bool_):
        return bool(flag)
    with contextlib.suppress(Exception):
        value = np.asarray(flag)
        if value.size == 1 and value.dtype.kind in "biuf" and not (value.dtype.kind == "f" and np.isnan(value)):
            return bool(value)
    raise Unfit(f"a {type(flag).__name__} as terminated or truncated", "return a bool")


def finite(values: np.ndarray) -> bool:
    """Returns whether all values are finite in float32, the dtype of the replay.

    The sum of squares is several times faster than looking at each value; where it is large, each is looked at.
    """
    squares = float(np.vdot(values, values))
    return squares <= LARGEST or bool((np.abs(values) <= LARGEST).all())
