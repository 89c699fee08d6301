"""Construction of environments from a Gymnasium id: vectorised ones to collect in, single ones to evaluate in."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncVectorEnv

from hvd_dqn.envs.atari import is_atari, vector_arguments
from hvd_dqn.envs.channels_last import channels_last, channels_last_vector
from hvd_dqn.envs.envpool_vector import EnvPoolVector
from hvd_dqn.envs.guard import Guard
from hvd_dqn.envs.maze import register_maze
from hvd_dqn.envs.seeded_episodes import SeededEpisodes
from hvd_dqn.envs.spaces import Spaces, read_spaces
from hvd_dqn.errors import UserError

EnvFactory = Callable[[], gym.Env[Any, Any]]


class SingleFromVector(gym.Env[Any, Any]):
    """A native vector environment of one, seen as a single environment.

    Where a vector form preprocesses (Atari) and the single form does not, evaluation must see what training saw.
    """

    def __init__(self, vector_env: VectorEnv[Any, Any, Any]) -> None:
        """Wraps a vector environment whose num_envs is 1."""
        self._vector_env = vector_env
        self.observation_space = vector_env.single_observation_space
        self.action_space = vector_env.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the one environment."""
        observation, info = self._vector_env.reset(seed=seed, options=options)
        return observation[0], info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the one environment."""
        observation, reward, terminated, truncated, info = self._vector_env.step(np.asarray([action]))
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def close(self) -> None:
        """Closes the vector environment."""
        self._vector_env.close()


class EnvironmentMaker:
    """Makes the environments of one id with one set of keyword arguments."""

    def __init__(self, env_id: str, arguments: dict[str, Any], vectorization: str) -> None:
        """Finds the id, importing the module that registers it where the id names one.

        Args:
          env_id: a Gymnasium id, or `module:Id`.
          arguments: keyword arguments of the environment.
          vectorization: auto, native, sync, async or envpool.

        Raises:
          UserError: if the module or the id does not exist (with the nearest match), or native was asked for
            and the environment has no vector form.
        """
        register_maze()
        self._id = _import_and_strip_module(env_id)
        self._arguments = arguments
        try:
            spec = gym.spec(self._id)
        except gym.error.Error as error:
            raise UserError(f"no environment {env_id!r}: {error}{_remedy(env_id)}") from None
        has_native = spec.vector_entry_point is not None and not spec.additional_wrappers
        if vectorization == "native" and not has_native:
            raise UserError(f"{env_id} has no native vector form: use --vectorization auto, sync or async")
        self._native = has_native and vectorization in ("auto", "native")
        self._pooled = vectorization == "envpool"
        self._async = vectorization == "async"
        self._vector_arguments = vector_arguments(spec, self._pooled) | arguments

    def vector(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """Makes `num_envs` environments stepped together.

        Raises:
          UserError: if the environment cannot be built.
        """
        if self._native or self._pooled:
            return self._built(lambda: self._make_native(num_envs))
        kind = AsyncVectorEnv if self._async else SyncVectorEnv
        members = [functools.partial(self._make_member, index) for index in range(num_envs)]
        return self._built(lambda: kind(members, autoreset_mode=AutoresetMode.NEXT_STEP))

    def single(self) -> gym.Env[Any, Any]:
        """Makes one environment that shows observations as `vector` does.

        Raises:
          UserError: if the environment cannot be built.
        """
        env = self._built(self._make_single)
        if not (self._native or self._pooled):
            return Guard(env, 0)
        vector_env = self._built(lambda: self._make_native(1))
        if _look_alike(vector_env.single_observation_space, env.observation_space):
            vector_env.close()
            return Guard(env, 0)
        env.close()
        return Guard(SingleFromVector(vector_env), 0)

    def spaces(self) -> Spaces:
        """Returns the spaces of a single environment, as `vector` shows them.

        Raises:
          UserError: if the environment cannot be built or its spaces are not supported.
        """
        env = self.single()
        try:
            return read_spaces(self._id, env.observation_space, env.action_space)
        finally:
            env.close()

    def _make_single(self) -> gym.Env[Any, Any]:
        """Makes one environment as Gymnasium registers it; a game of Atari as its vector form shows it."""
        if is_atari(self._id):
            return SingleFromVector(self._make_native(1))
        return channels_last(gym.make(self._id, disable_env_checker=True, **self._arguments))

    def _make_member(self, index: int) -> gym.Env[Any, Any]:
        """Makes environment number `index` of this rank; called in its own process where it has one."""
        return SeededEpisodes(Guard(self._make_single(), index))

    def _make_native(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """Creates vector environments of other libraries."""
        if self._pooled:
            return channels_last_vector(EnvPoolVector(self._id, num_envs, self._vector_arguments))
        return channels_last_vector(
            gym.make_vec(self._id, num_envs=num_envs, vectorization_mode="vector_entry_point", **self._vector_arguments)
        )

    def _built(self, build: Callable[[], Any]) -> Any:
        try:
            return build()
        except UserError:
            raise
        except gym.error.Error as error:
            raise UserError(f"cannot make {self._id}: {error}") from None
        except Exception as error:  # whatever a third party's constructor raises at arguments that it does not like
            raise UserError(
                f"cannot make {self._id} with --env-kwargs {self._arguments}: {type(error).__name__}: {error}"
            ) from error


def _look_alike(one: gym.Space[Any], other: gym.Space[Any]) -> bool:
    """Returns whether observations have the same form; bounds are a matter of taste."""
    return (type(one), one.shape, one.dtype) == (type(other), other.shape, other.dtype)


def _import_and_strip_module(env_id: str) -> str:
    """Imports the module of `module:Id` (and ale_py for ALE/...) and returns the bare id."""
    module, _, bare_id = env_id.rpartition(":")
    if not module and bare_id.startswith("ALE/"):
        module = "ale_py"
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"cannot import the module of --env {env_id!r}: {error}{_remedy(env_id)}") from None
    return bare_id


def _remedy(env_id: str) -> str:
    if "ALE/" in env_id:
        return " (Atari needs the extra [atari]: pip install 'hvd-dqn[atari]')"
    if ":" in env_id:
        return " (is the module's folder installed, or on PYTHONPATH?)"
    return " (all are listed by: python -c 'import gymnasium; gymnasium.pprint_registry()')"
