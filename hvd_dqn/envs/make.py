"""Construction of environments from a Gymnasium id: vectorised ones to collect in, single ones to evaluate in."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from hvd_dqn.envs.action_bins import with_bins, with_bins_vector
from hvd_dqn.envs.atari import OWN, PROTOCOLS, about, is_atari, thread_arguments, vector_arguments
from hvd_dqn.envs.channels_last import channels_last, channels_last_vector
from hvd_dqn.envs.envpool_vector import EnvPoolVector
from hvd_dqn.envs.find import find_spec
from hvd_dqn.envs.foreign import ForeignCalls, brief, where
from hvd_dqn.envs.guard import Guard, VectorGuard
from hvd_dqn.envs.life_losses import LIFE_LOST, LifeLosses
from hvd_dqn.envs.masks import PackedMask, PackedMaskVector, gives_masks, mask_to_infos, mask_to_infos_vector
from hvd_dqn.envs.maze import register_maze
from hvd_dqn.envs.pictures import COLOUR_SCREEN, RENDER_MODE, ColourScreen, ObservationPictures, action_names
from hvd_dqn.envs.seeded_episodes import SeededEpisodes
from hvd_dqn.envs.spaces import Spaces, read_spaces
from hvd_dqn.envs.stacked_frames import find_stacked_frames
from hvd_dqn.envs.workers import Workers
from hvd_dqn.errors import UserError

EnvFactory = Callable[[], gym.Env[Any, Any]]
Watched = Callable[[], contextlib.AbstractContextManager[None]]


class Masked(NamedTuple):
    """Which forms of an environment give action masks."""

    single: bool
    vector: bool


class SingleFromVector(gym.Env[Any, Any]):
    """A native vector environment of one, seen as a single environment.

    Where a vector form preprocesses (Atari) and the single form does not, evaluation must see what training saw.
    """

    def __init__(self, vector_env: VectorEnv[Any, Any, Any]) -> None:
        """Wraps a vector environment whose num_envs is 1."""
        self.vector_env = vector_env
        self.observation_space = vector_env.single_observation_space
        self.action_space = vector_env.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the one environment."""
        observation, info = self.vector_env.reset(seed=seed, options=options)
        return observation[0], info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the one environment."""
        observation, reward, terminated, truncated, info = self.vector_env.step(np.asarray([action]))
        lost = {LIFE_LOST: bool(info[LIFE_LOST][0])} if LIFE_LOST in info else {}
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), lost

    def close(self) -> None:
        """Closes the vector environment."""
        self.vector_env.close()


class EnvironmentMaker:
    """Makes the environments of one id with one set of keyword arguments; all of them are guarded."""

    def __init__(
        self,
        env_id: str,
        arguments: dict[str, Any],
        vectorization: str,
        protocol: str = OWN,
        action_bins: int = 0,
        *,
        watched: Watched = contextlib.nullcontext,
    ) -> None:
        """Finds the id, importing the module that registers it where the id names one.

        Args:
          env_id: a Gymnasium id, `module:Id`, `file.py:Id`, or a class in place of the Id.
          arguments: keyword arguments of the environment.
          vectorization: auto, native, sync, async or envpool.
          protocol: own, or one of `hvd_dqn.envs.atari.PROTOCOLS`.
          action_bins: bins of each number of Box actions; 0 where actions are discrete.
          watched: what each constructor runs in, and the reset of the environment in which masks are looked for.

        Raises:
          UserError: if the module or the id does not exist (with the nearest match), native was asked for and the
            environment has no vector form, or the protocol is not for it.
        """
        register_maze()
        spec = find_spec(env_id)
        self._id = spec.id
        self._arguments = arguments
        has_native = spec.vector_entry_point is not None and not spec.additional_wrappers
        if vectorization == "native" and not has_native:
            raise UserError(f"{env_id} has no native vector form: use --vectorization auto, sync or async")
        self._native = has_native and vectorization in ("auto", "native")
        self._pooled = vectorization == "envpool"
        self._async = vectorization == "async"
        self._vector_arguments = vector_arguments(spec, arguments, protocol, self._pooled)
        self._life_losses = protocol != OWN and PROTOCOLS[protocol].life_ends_task
        self._protocol, self._bins = protocol, action_bins
        self._masked: Masked | None = None
        self._watched = watched
        self.calls = ForeignCalls()
        """Of the environments made here."""

    def find_masks(self) -> None:
        """Finds out which forms give action masks, from a first environment of each; further calls have no effect.

        Raises:
          UserError: if the environment cannot be built.
        """
        if self._masked is None:
            single, vector = False, False
            if not is_atari(self._id):
                single = self._gives_masks(self._make_unpacked)
                vector = self._native and self._gives_masks(lambda: self._make_unpacked_vector(1))
            self._masked = Masked(single, vector)

    def vector(self, num_envs: int, first_env: int = 0) -> VectorEnv[Any, Any, Any]:
        """Makes `num_envs` environments stepped together.

        Args:
          num_envs: E.
          first_env: index of the first of them over all ranks, by which messages name them.

        Raises:
          UserError: if the environment cannot be built.
        """
        self.find_masks()
        if self._native or self._pooled:
            return self._built(
                lambda: VectorGuard(self._make_native(num_envs), first_env, self.calls, life_losses=self._life_losses)
            )
        names = [f"environment {first_env + index}" for index in range(num_envs)]
        if self._async:  # the job waits for all processes together, and none of them may end it
            members = [functools.partial(self._make_member, name, contextlib.nullcontext) for name in names]
            return self._built(lambda: Workers(members, names, self.calls))
        made = [functools.partial(lambda env: env, self._make_member(name, self._watched)) for name in names]
        return self._built(lambda: SyncVectorEnv(made, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP))

    def single(self, name: str = "an evaluation environment", *, filmed: bool = False) -> gym.Env[Any, Any]:
        """Makes one environment that shows observations as `vector` does.

        Args:
          name: of the environment in messages.
          filmed: whether its render() is to return its picture, uint8 [H, W, 3].

        Raises:
          UserError: if the environment cannot be built, or is to be filmed and has no pictures.
        """
        self.find_masks()
        lives = self._life_losses
        env = self._built(lambda: Guard(self._make_single(filmed), name, self.calls, life_losses=lives))
        if not (self._native or self._pooled):
            return env
        vector_env = self._built(lambda: VectorGuard(self._make_native(1), 0, self.calls))
        if _look_alike(vector_env.single_observation_space, env.observation_space):
            vector_env.close()
            return env
        env.close()
        own = SingleFromVector(vector_env)
        return Guard(self._with_pictures(own) if filmed else own, name, self.calls, life_losses=lives)

    def action_names(self, env: gym.Env[Any, Any]) -> list[str]:
        """Returns short names of the actions of an environment that was made here."""
        return action_names(env, self._id)

    def spaces(self) -> Spaces:
        """Returns the spaces of a single environment, as `vector` shows them.

        Raises:
          UserError: if the environment cannot be built or its spaces are not supported.
        """
        env = self.single("a first environment")
        try:
            spaces: Spaces = self._built(lambda: read_spaces(self._id, env.observation_space, env.action_space))
            return spaces.stacking(find_stacked_frames(env, self._id, self._vector_arguments))
        finally:
            env.close()

    def about(self, env_steps: int) -> dict[str, str]:
        """Returns what the start report says of a game of Atari in a run of so many env steps."""
        return about(self._id, self._vector_arguments, self._protocol, env_steps)

    def _make_single(self, filmed: bool = False) -> gym.Env[Any, Any]:
        """Makes one environment with its mask packed, where it has one; a game of Atari as its vector form shows it."""
        if is_atari(self._id):
            game = SingleFromVector(self._make_native(1))
            if not filmed:
                return game
            if self._pooled:
                return self._with_pictures(game)
            return ColourScreen(game, SingleFromVector(self._make_unpacked_vector(1, COLOUR_SCREEN)))
        if not filmed:
            env = self._make_unpacked()
        elif self._draws():
            env = self._make_unpacked({"render_mode": RENDER_MODE})
        else:
            env = self._with_pictures(self._make_unpacked())
        return PackedMask(env) if self._masked and self._masked.single else env

    def _draws(self) -> bool:
        """Returns whether the environment draws pictures; of MinAtar's games the cells are shown instead."""
        if self._id.startswith("MinAtar/"):
            return False
        name = "a first environment"
        env = self._built(self._make_unpacked, name)
        modes = (env.metadata or {}).get("render_modes")
        self.calls.close(name, env.close)
        return RENDER_MODE in (modes or ())

    def _with_pictures(self, env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        return ObservationPictures(env, self._id, find_stacked_frames(env, self._id, self._vector_arguments))

    def _make_unpacked(self, others: Mapping[str, Any] = MappingProxyType({})) -> gym.Env[Any, Any]:
        """Makes one environment as Gymnasium registers it, with other arguments; a mask is in its infos."""
        spec: str | EnvSpec = self._id
        if self._id.startswith("MinAtar/"):
            from hvd_dqn.envs.minatar import MinAtarGame

            spec = replace(gym.spec(self._id), entry_point=MinAtarGame)
        arguments = {**self._arguments, **others}
        made = gym.make(spec, disable_env_checker=True, **arguments)
        return channels_last(mask_to_infos(with_bins(made, self._id, self._bins)))

    def _make_member(self, name: str, watched: Watched) -> gym.Env[Any, Any]:
        """Makes one environment of several; called in its own process where it has one."""

        def build() -> gym.Env[Any, Any]:
            return SeededEpisodes(Guard(self._make_single(), name, self.calls, life_losses=self._life_losses))

        return self._built(build, name, watched)

    def _make_native(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """Creates vector environments of other libraries."""
        if self._pooled:
            pool = EnvPoolVector(self._id, num_envs, self._vector_arguments)
            return channels_last_vector(with_bins_vector(pool, self._id, self._bins))
        vector_env = self._make_unpacked_vector(num_envs)
        return PackedMaskVector(vector_env) if self._masked and self._masked.vector else vector_env

    def _make_unpacked_vector(
        self, num_envs: int, others: Mapping[str, Any] = MappingProxyType({})
    ) -> VectorEnv[Any, Any, Any]:
        """Creates the environment's own vector form, with other arguments; masks are in its infos."""
        mode, arguments = "vector_entry_point", {**self._vector_arguments, **others}
        threads = thread_arguments(self._id, arguments, num_envs)
        made = gym.make_vec(self._id, num_envs=num_envs, vectorization_mode=mode, **threads, **arguments)
        made = with_bins_vector(made, self._id, self._bins)
        return channels_last_vector(mask_to_infos_vector(LifeLosses(made) if self._life_losses else made))

    def _gives_masks(self, make: Callable[[], Any]) -> bool:
        name = "a first environment"
        env = self._built(make, name)
        self.calls.running = name, "reset()"
        with self._watched():
            found = gives_masks(env)
        self.calls.running = None
        self.calls.close(name, env.close)
        return found

    def _built(self, build: Callable[[], Any], name: str = "an environment", watched: Watched | None = None) -> Any:
        self.calls.running = name, "the constructor"
        try:
            with (watched or self._watched)():
                return build()
        except UserError:
            raise
        except BaseException as error:  # whatever a third party's constructor raises at arguments that it does not like
            hint = ""
            if self._native and isinstance(error, TypeError) and self._arguments:
                hint = "; --vectorization sync takes the arguments of the single form"
            given = f" with --env-kwargs {self._arguments}" if self._arguments else ""
            raise UserError(f"cannot make {self._id}{given}: {brief(error)}{hint}{where(error)}") from None
        finally:
            self.calls.running = None


def _look_alike(one: gym.Space[Any], other: gym.Space[Any]) -> bool:
    """Returns whether observations have the same form; bounds are a matter of taste."""
    return (type(one), one.shape, one.dtype) == (type(other), other.shape, other.dtype)
