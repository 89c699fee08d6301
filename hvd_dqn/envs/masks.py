"""Action masks: taken from an environment's infos or its Dict observations, and packed behind the observation.

One flat array [n + A] holds an observation of n numbers and the mask of the A actions, so that replay, n-step windows
and checkpoints need not know of masks. The learner takes the two apart again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from hvd_dqn.envs.checks import ObservationCheck, Unfit, VectorObservationCheck, checked_flag, checked_mask
from hvd_dqn.envs.guard import autoreset_mode
from hvd_dqn.envs.spaces import MaskedSpace, is_supported
from hvd_dqn.errors import UserError

KEY = "action_mask"
"""Of a mask in infos and in Dict observations: 1 for an action that may be taken, 0 for others."""


def mask_to_infos(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Moves the mask of Dict observations into the infos; returns other environments unchanged."""
    return DictMask(env) if _masks_discrete(env.observation_space, env.action_space) else env


def mask_to_infos_vector(vector_env: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    """Moves the masks of Dict observations into the infos; returns other vector environments unchanged."""
    masked = _masks_discrete(vector_env.single_observation_space, vector_env.single_action_space)
    return DictMaskVector(vector_env) if masked else vector_env


def gives_masks(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> bool:
    """Resets an environment, single or vectorised, to see whether its infos hold masks.

    What it raises is ignored here: the same call raises it again where it can be reported with the environment's name.

    Raises:
      UserError: if they hold masks of actions that are not Discrete.
    """
    vectorised = isinstance(env, VectorEnv)
    try:
        observation = env.single_observation_space if vectorised else env.observation_space
        action = env.single_action_space if vectorised else env.action_space
        known = isinstance(action, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)) and not np.any(action.start)
        if not (known and is_supported(observation)):
            return False
        _, info = env.reset()
        found = KEY in info
    except BaseException:
        return False
    if found and isinstance(action, gym.spaces.MultiDiscrete):
        raise UserError(
            f"the infos hold {KEY!r}, and masks are for Discrete actions, not for {action}: list the actions as one "
            f"Discrete space, or remove {KEY!r} if all of them are valid"
        )
    return found


class DictMask(gym.Wrapper[Any, Any, Any, Any]):
    """A single environment whose mask moves from its Dict observations into its infos."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Wraps an environment whose observations hold a mask and one other part."""
        super().__init__(env)
        space: Any = env.observation_space
        self._key = _observation_key(space)
        self.observation_space = space[self._key]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets; the infos are the mask alone."""
        observation, _ = self.env.reset(seed=seed, options=options)
        return _taken_apart(observation, self._key)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps; the infos are the mask alone."""
        observation, reward, terminated, truncated, _ = self.env.step(action)
        observation, info = _taken_apart(observation, self._key)
        return observation, reward, terminated, truncated, info


class DictMaskVector(VectorWrapper):
    """A vector environment whose masks move from its Dict observations into its infos, the final ones too."""

    def __init__(self, vector_env: VectorEnv[Any, Any, Any]) -> None:
        """Wraps an environment whose observations hold a mask and one other part."""
        super().__init__(vector_env)
        space: Any = vector_env.single_observation_space
        self._key = _observation_key(space)
        self.single_observation_space = space[self._key]
        self.observation_space = batch_space(self.single_observation_space, vector_env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all; the infos are the masks alone."""
        observation, _ = self.env.reset(seed=seed, options=options)
        return _taken_apart(observation, self._key)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all; the infos are the masks, and of ended episodes the last observations and masks."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        observation, masks = _taken_apart(observation, self._key)
        if isinstance(info, Mapping) and "final_obs" in info:
            final, members = info["final_obs"], range(self.num_envs)
            masks["final_obs"] = [_of_env(final, self._key, env) for env in members]
            masks["final_info"] = [{KEY: _of_env(final, KEY, env)} for env in members]
        return observation, reward, terminated, truncated, masks


class PackedMask(gym.Wrapper[Any, Any, Any, Any]):
    """A single environment that shows observation and mask as one flat array."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Wraps an environment whose infos hold masks."""
        super().__init__(env)
        self._check = ObservationCheck(env.observation_space)
        self._space = self.observation_space = _masked_space(env, env.observation_space, env.action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets and packs the first observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._packed(observation, info, ended=False), info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps and packs the observation."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._packed(observation, info, ended=checked_flag(terminated)), reward, terminated, truncated, info

    def _packed(self, observation: Any, info: Any, *, ended: bool) -> np.ndarray:
        mask = info.get(KEY) if isinstance(info, Mapping) else None
        return self._space.pack(self._check(observation), checked_mask(mask, self._space.num_actions, ended))


class PackedMaskVector(VectorWrapper):
    """A vector environment that shows observations and masks as flat arrays, the final ones too."""

    def __init__(self, vector_env: VectorEnv[Any, Any, Any]) -> None:
        """Wraps an environment whose infos hold masks.

        Raises:
          UserError: if the autoreset mode is unknown.
        """
        super().__init__(vector_env)
        self._same_step = autoreset_mode(vector_env) == AutoresetMode.SAME_STEP
        single = vector_env.single_observation_space
        self._check = VectorObservationCheck(single, vector_env.num_envs)
        self._space = self.single_observation_space = _masked_space(vector_env, single, vector_env.single_action_space)
        self.observation_space = batch_space(self._space, vector_env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all and packs the first observations."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._packed(observation, info, np.zeros(self.num_envs, np.bool_)), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all and packs the observations, and with SAME_STEP autoreset the last ones of ended episodes."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        ended = np.array(terminated, np.bool_)
        if self._same_step and "final_obs" in info:
            done = ended | np.array(truncated, np.bool_)
            final = {int(env): self._final(info, int(env), bool(ended[env])) for env in np.flatnonzero(done)}
            info = {**info, "final_obs": final}
        # With SAME_STEP the observations of ended episodes are the first ones of others.
        packed = self._packed(observation, info, np.zeros_like(ended) if self._same_step else ended)
        return packed, reward, terminated, truncated, info

    def _packed(self, observation: Any, info: Any, ended: np.ndarray) -> np.ndarray:
        return self._space.pack(self._check(observation), self._masks(info, ended))

    def _masks(self, info: Any, ended: np.ndarray) -> np.ndarray:
        """Returns all masks as bool [E, A]; one by one only where they are not as they should be."""
        rows, flags = info.get(KEY), info.get(f"_{KEY}")
        shape = (self.num_envs, self._space.num_actions)
        if isinstance(rows, np.ndarray) and rows.shape == shape and (flags is None or np.all(flags)):
            valid: np.ndarray = rows == 1
            if (valid | (rows == 0)).all() and valid.any(axis=1).all():
                return valid
        return np.stack([self._mask(_of_env(info, KEY, env), env, bool(over)) for env, over in enumerate(ended)])

    def _mask(self, mask: Any, env: int, ended: bool) -> np.ndarray:
        try:
            return checked_mask(mask, self._space.num_actions, ended)
        except Unfit as unfit:
            raise unfit.of(env) from None

    def _final(self, info: Any, env: int, ended: bool) -> np.ndarray:
        """Returns an ended episode's last observation and mask; where the infos hold no mask, every action is valid."""
        observation = self._check.one(env, info["final_obs"][env])
        mask = _of_env(info["final_info"], KEY, env) if "final_info" in info else None
        return self._space.pack(observation, self._mask(mask, env, ended or mask is None))


def _observation_key(space: gym.Space[Any]) -> str:
    """Returns the key of a Dict's other part if it holds a mask and one part that is supported; "" for others."""
    if not isinstance(space, gym.spaces.Dict) or KEY not in space.spaces or len(space.spaces) != 2:
        return ""
    (key,) = (key for key in space.spaces if key != KEY)
    return key if is_supported(space[key]) else ""


def _masks_discrete(observation: gym.Space[Any], action: gym.Space[Any]) -> bool:
    """Returns whether observations hold masks of Discrete actions."""
    return isinstance(action, gym.spaces.Discrete) and bool(_observation_key(observation))


def _masked_space(env: Any, observation: gym.Space[Any], action: gym.Space[Any]) -> MaskedSpace:
    assert isinstance(action, gym.spaces.Discrete)
    layer, source = env, "infos"
    while isinstance(layer, (gym.Wrapper, VectorWrapper)):
        source = "observations" if isinstance(layer, (DictMask, DictMaskVector)) else source
        layer = layer.env
    return MaskedSpace(observation, int(action.n), source)


def _taken_apart(observation: Any, key: str) -> tuple[Any, dict[str, Any]]:
    """Returns a Dict observation's other part, and the mask as infos.

    Raises:
      Unfit: if it lacks one of them.
    """
    if not isinstance(observation, Mapping) or key not in observation or KEY not in observation:
        raise Unfit(f"a {type(observation).__name__} as observation", f"its observation space has {key!r} and {KEY!r}")
    return observation[key], {KEY: observation[KEY]}


def _of_env(infos: Any, key: str, env: int) -> Any:
    """Returns what the infos of a vector environment hold for one member, None for nothing.

    Args:
      infos: columns with flags, as Gymnasium makes them, or a dict or None per member.
      key: of the value.
      env: the member.
    """
    if isinstance(infos, Mapping):
        flags = infos.get(f"_{key}")
        return infos[key][env] if key in infos and (flags is None or flags[env]) else None
    return infos[env].get(key) if infos[env] is not None else None
