"""Box actions in bins: each number of an action becomes a joint, whose bins stand for values from bound to bound."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from hvd_dqn.errors import UserError


class BinnedSpace(gym.spaces.MultiDiscrete):
    """The bins of a Box: N for each of its J numbers."""

    def __init__(self, env_id: str, action: gym.Space[Any], bins: int) -> None:
        """Spaces the bins equally, both bounds included.

        Args:
          env_id: of the environment, for messages.
          action: its action space.
          bins: N, at least 2.

        Raises:
          UserError: unless the space is a Box of floats with finite bounds.
        """
        refused = f"--action-bins {bins} is for Box actions, and {env_id} has the action space {action}"
        if not isinstance(action, gym.spaces.Box):
            raise UserError(f"{refused}: leave it out")
        if not np.issubdtype(action.dtype, np.floating) or not action.shape:
            raise UserError(f"{refused}: only rows of floats can be divided; wrap the environment in one that has them")
        if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
            raise UserError(
                f"{refused}, with infinite bounds, between which no bins can be spaced: clip its actions "
                "with gymnasium.wrappers.TransformAction in an environment of your own"
            )
        super().__init__([bins] * action.low.size)
        low, high = (bound.ravel().astype(np.float64) for bound in (action.low, action.high))
        self.values = np.linspace(low, high, bins, axis=1).astype(action.dtype)
        """[J, N], in the Box's dtype: what each bin stands for."""
        self._box_shape = action.shape

    def unbinned(self, actions: np.ndarray) -> np.ndarray:
        """Returns Box actions [..., *box shape] for bins [..., J]."""
        chosen = self.values[np.arange(len(self.values)), actions]
        return chosen.reshape(*chosen.shape[:-1], *self._box_shape)


class BinnedActions(gym.Wrapper[Any, Any, Any, Any]):
    """A single environment whose actions are bins."""

    def __init__(self, env: gym.Env[Any, Any], env_id: str, bins: int) -> None:
        """Wraps an environment of Box actions; see `BinnedSpace`."""
        super().__init__(env)
        self._space = self.action_space = BinnedSpace(env_id, env.action_space, bins)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps by the values of the bins [J]."""
        return self.env.step(self._space.unbinned(np.asarray(action)))


class BinnedActionsVector(VectorWrapper):
    """A vector environment whose actions are bins."""

    def __init__(self, vector_env: VectorEnv[Any, Any, Any], env_id: str, bins: int) -> None:
        """Wraps a vector environment of Box actions; see `BinnedSpace`."""
        super().__init__(vector_env)
        self._space = self.single_action_space = BinnedSpace(env_id, vector_env.single_action_space, bins)
        self.action_space = batch_space(self._space, vector_env.num_envs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps by the values of the bins [E, J]."""
        return self.env.step(self._space.unbinned(np.asarray(actions)))


def with_bins(env: gym.Env[Any, Any], env_id: str, bins: int) -> gym.Env[Any, Any]:
    """Wraps a single environment, unless bins is 0."""
    return BinnedActions(env, env_id, bins) if bins else env


def with_bins_vector(vector_env: VectorEnv[Any, Any, Any], env_id: str, bins: int) -> VectorEnv[Any, Any, Any]:
    """Wraps a vector environment, unless bins is 0."""
    return BinnedActionsVector(vector_env, env_id, bins) if bins else vector_env
