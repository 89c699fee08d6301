"""EnvPool's C++ environments as a VecEnv of Stable-Baselines3, whose documentation asks for such an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import envpool
import numpy as np
from comparison.protocol import NotApplicable, Task
from stable_baselines3.common.vec_env import VecEnv


class EnvPoolVecEnv(VecEnv):
    """Steps EnvPool's environments; an ended one is reset within the same step, as Stable-Baselines3 expects."""

    def __init__(self, task: Task) -> None:
        if task.case.env.startswith("Flat/"):
            raise NotApplicable("EnvPool has no MinAtar")
        # Its Atari environments preprocess as Mnih et al. (2015) by themselves, stacking included.
        name = task.case.env.removeprefix("ALE/")
        self._pool = envpool.make_gymnasium(name, num_envs=task.num_envs, num_threads=1, seed=task.seed)
        self._infos: list[dict[str, Any]] = [{} for _ in range(task.num_envs)]
        self._actions = np.zeros(task.num_envs, np.int32)
        super().__init__(task.num_envs, self._pool.observation_space, self._pool.action_space)

    def reset(self) -> np.ndarray:
        """Starts all episodes anew."""
        return self._pool.reset()[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Takes the actions of the next `step_wait`."""
        self._actions = actions.astype(np.int32)

    def step_wait(self) -> Any:
        """Steps all environments."""
        observation, reward, terminated, truncated, _ = self._pool.step(self._actions)
        done = terminated | truncated
        infos = self._infos
        if done.any():
            ended = np.flatnonzero(done).astype(np.int32)
            infos = [{} for _ in range(self.num_envs)]
            for i in ended:
                infos[i] = {
                    "terminal_observation": observation[i].copy(),
                    "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                }
            observation = observation.copy()
            observation[ended] = self._pool.reset(ended)[0]
        return observation, reward, done, infos

    def close(self) -> None:
        """Closes the environments."""
        self._pool.close()

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Says that nothing is wrapped."""
        return [False] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Returns an attribute of the pool for each environment."""
        return [getattr(self._pool, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Is not supported."""
        raise NotImplementedError

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **keywords: Any) -> list[Any]:
        """Is not supported."""
        raise NotImplementedError

    def seed(self, seed: int | None = None) -> Sequence[None]:
        """Does nothing: the pool was seeded when it was made."""
        return [None] * self.num_envs
