"""EnvPool's C++ environments as a Gymnasium vector environment (Weng et al. 2022, https://arxiv.org/abs/2206.10558)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from hvd_dqn.errors import UserError

_SEEDS = 2**31 - 2**20


class EnvPoolVector(VectorEnv[Any, Any, Any]):
    """A pool of environments with one thread per core of this rank. Uses NEXT_STEP autoreset."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 as Gymnasium declares it

    def __init__(self, env_id: str, num_envs: int, arguments: dict[str, Any]) -> None:
        """Creates the pool.

        Args:
          env_id: a Gymnasium id. A leading ALE/ is dropped, as in EnvPool's names of Atari games.
          num_envs: environments in the pool.
          arguments: further arguments of `envpool.make`.

        Raises:
          UserError: if EnvPool is not installed or has no such environment.
        """
        try:
            import envpool
        except ImportError as error:
            raise UserError(
                f"--vectorization envpool needs the extra [envpool]: pip install 'hvd-dqn[envpool]' ({error})"
            ) from None
        name = env_id.removeprefix("ALE/")
        if name not in envpool.list_all_envs():
            raise UserError(f"EnvPool has no {name}: use --vectorization auto, sync or async")
        self._make = lambda seed: envpool.make_gymnasium(
            name, num_envs=num_envs, num_threads=len(os.sched_getaffinity(0)), seed=seed, **arguments
        )
        self._pool = self._make(0)
        real = np.issubdtype(self._pool.action_space.dtype, np.floating)
        self._action_dtype = self._pool.action_space.dtype if real else np.int32
        self.num_envs = num_envs
        self.single_observation_space = self._pool.observation_space
        self.single_action_space = self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all environments. With a seed, recreates the pool, since a pool cannot be seeded again.

        Args:
          seed: seed of the first environment; the others use the following integers.
          options: not used.
        """
        del options
        if seed is not None:
            self._pool.close()
            self._pool = self._make(seed % _SEEDS)
        observation, _ = self._pool.reset()
        return observation, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all environments."""
        observation, reward, terminated, truncated, _ = self._pool.step(np.asarray(actions, self._action_dtype))
        return observation, reward, terminated, truncated, {}

    def close_extras(self, **keywords: Any) -> None:
        """Closes the pool and its threads."""
        del keywords
        self._pool.close()
