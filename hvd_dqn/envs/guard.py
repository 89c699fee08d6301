"""Wrappers around environments: what one raises or returns wrongly becomes a fault that names it, call and step."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from hvd_dqn.envs.checks import (
    LARGEST,
    ObservationCheck,
    Unfit,
    VectorObservationCheck,
    checked_flag,
    checked_picture,
    checked_reward,
    finite,
)
from hvd_dqn.envs.foreign import OLD_INTERFACE, ForeignCalls, end_forked, foreign
from hvd_dqn.envs.life_losses import LIFE_LOST
from hvd_dqn.errors import JobFault, UserError


class Guard(gym.Wrapper[Any, Any, Any, Any]):
    """A single environment. Its infos are dropped, so that their form cannot break a run; but for lost lives."""

    def __init__(
        self, env: gym.Env[Any, Any], name: str, calls: ForeignCalls | None = None, *, life_losses: bool = False
    ) -> None:
        """Wraps an environment.

        Args:
          env: the environment.
          name: of the environment in messages.
          calls: shared by the environments of the process.
          life_losses: whether its infos mark lost lives.
        """
        super().__init__(env)
        self.name = name
        self._life_losses = life_losses
        self._calls = calls or ForeignCalls()
        self._step = 0
        self._check = ObservationCheck(env.observation_space)
        self._process = os.getpid()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and checks the first observation."""
        self._calls.running = self.name, "reset()"
        try:
            try:
                with foreign(self.name, "reset()"):
                    answer = self.env.reset(seed=seed, options=options)
            finally:
                end_forked(self._process, self.name)
            self._calls.running = None
            if not isinstance(answer, tuple) or len(answer) != 2:
                raise JobFault(f"{self.name} returned {_form(answer)} from reset(): {OLD_INTERFACE}")
            return self._check(answer[0]), {}
        except Unfit as unfit:
            self._refuse(unfit)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment and checks observation and reward."""
        self._step += 1
        self._calls.running = self.name, "step()"
        try:
            answer = self.env.step(action)
        except Unfit as unfit:
            self._refuse(unfit)
        except BaseException as error:  # no with-block around each step, which costs as much as a small environment
            end_forked(self._process, self.name)
            with foreign(self.name, f"step() at its step {self._step}"):
                raise error
        if os.getpid() != self._process:
            end_forked(self._process, self.name)
        self._calls.running = None
        try:
            observation, reward, terminated, truncated, info = answer
        except (TypeError, ValueError):
            raise JobFault(f"{self.name} returned {_form(answer)} from step(): {OLD_INTERFACE}") from None
        try:
            if type(reward) is not float or not -LARGEST <= reward <= LARGEST:
                reward = checked_reward(reward)
            if type(terminated) is not bool or type(truncated) is not bool:
                terminated, truncated = checked_flag(terminated), checked_flag(truncated)
            lost = {LIFE_LOST: info[LIFE_LOST]} if self._life_losses else {}
            return self._check(observation), reward, terminated, truncated, lost
        except Unfit as unfit:
            self._refuse(unfit)

    def render(self) -> np.ndarray:
        """Returns the checked picture, uint8 [H, W, 3], of an environment that was made to be filmed."""
        self._calls.running = self.name, "render()"
        try:
            with foreign(self.name, "render()"):
                picture = self.env.render()
            self._calls.running = None
            return checked_picture(picture)
        except Unfit as unfit:
            self._refuse(unfit)

    def close(self) -> None:
        """Closes the environment within a bounded time, whatever it does."""
        self._calls.close(self.name, self.env.close)

    def _refuse(self, unfit: Unfit) -> NoReturn:
        raise fault(self.name, unfit, self._step)


class VectorGuard(VectorWrapper):
    """A native vector environment; of its infos only `final_obs` and lost lives are looked at."""

    def __init__(
        self,
        vector_env: VectorEnv[Any, Any, Any],
        first_env: int,
        calls: ForeignCalls,
        *,
        life_losses: bool = False,
    ) -> None:
        """Wraps environments `first_env` and the following ones.

        Args:
          vector_env: the environments.
          first_env: index of the first of them over all ranks.
          calls: shared by the environments of the process.
          life_losses: whether its infos mark lost lives.

        Raises:
          UserError: if the autoreset mode is unknown.
        """
        super().__init__(vector_env)
        self._first_env, self._calls, self._life_losses = first_env, calls, life_losses
        self.name = f"the vector environment of environments {first_env} to {first_env + self.num_envs - 1}"
        self._same_step = autoreset_mode(vector_env) == AutoresetMode.SAME_STEP
        self._step = 0
        self._check = VectorObservationCheck(vector_env.single_observation_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all and checks the first observations."""
        self._calls.running = self.name, "reset()"
        try:
            with foreign(self.name, "reset()"):
                observation, _ = self.env.reset(seed=seed, options=options)
            self._calls.running = None
            return self._check(observation), {}
        except Unfit as unfit:
            self._refuse(unfit)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all and checks observations, rewards and flags."""
        self._step += 1
        self._calls.running = self.name, "step()"
        try:
            observation, reward, terminated, truncated, info = self.env.step(actions)
            reward = np.array(reward, np.float64)
            terminated, truncated = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        except Unfit as unfit:
            self._refuse(unfit)
        except BaseException as error:  # no with-block around each step; see `Guard.step`
            with foreign(self.name, f"step() at its step {self._step}"):
                raise error
        self._calls.running = None
        for what, column in (("rewards", reward), ("terminated", terminated), ("truncated", truncated)):
            if column.shape != (self.num_envs,):
                self._refuse(Unfit(f"{what} of shape {column.shape}", f"one for each of {self.num_envs} is needed"))
        if not finite(reward):
            index = int(np.flatnonzero(~(np.abs(reward) <= LARGEST))[0])
            self._refuse(Unfit(f"reward {reward[index]}", "rewards must be finite, as float32", index))
        try:
            observation = self._check(observation)
            final = self._final_observations(terminated | truncated, info) if self._same_step else {}
        except Unfit as unfit:
            self._refuse(unfit)
        if self._life_losses:
            final[LIFE_LOST] = info[LIFE_LOST]
        return observation, reward, terminated, truncated, final

    def close(self, **keywords: Any) -> None:
        """Closes all within a bounded time, whatever the environment does."""
        self._calls.close(self.name, lambda: self.env.close(**keywords))

    def _refuse(self, unfit: Unfit) -> NoReturn:
        raise fault(self.name if unfit.env is None else self._name_of(unfit.env), unfit, self._step)

    def _final_observations(self, done: np.ndarray, info: Any) -> dict[str, Any]:
        """Returns the last observation of each episode that has ended, which `info` must hold."""
        if not done.any():
            return {}
        with foreign(self.name, f"infos of its step {self._step}"):
            if "final_obs" not in info:
                raise JobFault(
                    f"{self.name} resets in the step that ends an episode (SAME_STEP), and its infos have no "
                    f"'final_obs' at its step {self._step}, only {', '.join(map(repr, info)) or 'nothing'}: return "
                    "the last observations as info['final_obs'], or use --vectorization sync"
                )
            final = info["final_obs"]
            found = {int(i): final[i] for i in np.flatnonzero(done)}
        return {"final_obs": {i: self._check.one(i, one) for i, one in found.items()}}

    def _name_of(self, index: int) -> str:
        return f"environment {self._first_env + index}"


def autoreset_mode(vector_env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """Returns when a vector environment resets its members.

    Raises:
      UserError: if it does not say so, or does so in another way than NEXT_STEP and SAME_STEP.
    """
    declared = (vector_env.metadata or {}).get("autoreset_mode")
    try:
        mode = AutoresetMode(declared)
    except ValueError:
        mode = AutoresetMode.DISABLED
    if mode == AutoresetMode.DISABLED:
        raise UserError(
            f"the vector environment's metadata['autoreset_mode'] is {declared}: AutoresetMode.NEXT_STEP and SAME_STEP "
            "are supported; declare the one that it uses, or give --vectorization sync"
        )
    return mode


def fault(name: str, unfit: Unfit, step: int) -> JobFault:
    """Returns the fault of an environment that returned something unfit."""
    return JobFault(f"{name} returned {unfit.what} at its step {step}: {unfit.why}; fix the environment")


def _form(answer: Any) -> str:
    """Returns in words what came instead of the values that were expected."""
    return f"{len(answer)} values" if isinstance(answer, tuple) else f"a {type(answer).__name__}"
