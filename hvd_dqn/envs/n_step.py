"""Multi-step transitions (Sutton 1988; as in Rainbow, Hessel et al. 2018), accumulated per environment."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import UserError
from hvd_dqn.transition import Transition


class NStep:
    """Joins each environment's steps to transitions over n steps.

    A transition goes from an observation to the one n steps later, with r_t the discounted sum of the n rewards and
    discount_t the product of the n discounts. An episode's last transitions are shorter: they end where the episode
    ends, terminated (discount 0) or truncated. No transition reaches into another episode.
    """

    def __init__(self, steps: int, num_envs: int, spaces: Spaces) -> None:
        """Creates empty windows.

        Args:
          steps: n, at least 1.
          num_envs: E.
          spaces: of one environment.
        """
        self._steps = steps
        self._count = np.zeros(num_envs, np.int64)  # steps in each window, below n between two calls
        self._windows = {
            "s_tm1": np.zeros((num_envs, steps, *spaces.observation_shape), spaces.observation_dtype),
            "a_tm1": np.zeros((num_envs, steps, *spaces.action_shape), np.int32),
            "r_t": np.zeros((num_envs, steps), np.float32),
            "discount_t": np.zeros((num_envs, steps), np.float32),
        }
        """Columns [E, n, ...] of transitions that have not reached their last observation yet."""

    def add(self, step: Transition, envs: np.ndarray, ended: np.ndarray) -> Transition:
        """Takes one-step transitions and returns the transitions that they complete.

        Args:
          step: columns [N], of different environments.
          envs: int [N], their environments.
          ended: bool [N], whether the episode ended with this step, terminated or truncated.

        Returns:
          Columns [M], by environment, oldest first; s_t are the observations in `step`.
        """
        last, places = self._count[envs], np.arange(self._steps)  # [N], [n]
        running = places <= last[:, None]  # [N, n]
        s_tm1, a_tm1, r_t, discount_t = self._windows.values()
        s_tm1[envs, last], a_tm1[envs, last] = step.s_tm1, step.a_tm1
        r_t[envs, last], discount_t[envs, last] = 0.0, 1.0
        r_t[envs] += np.where(running, discount_t[envs] * step.r_t[:, None], np.float32(0.0))
        discount_t[envs] *= np.where(running, step.discount_t[:, None], np.float32(1.0))
        full = last + 1 == self._steps
        row, place = np.nonzero(running & (ended[:, None] | (full[:, None] & (places == 0))))
        completed = self._completed(envs[row], place, step.s_t[row])
        self._count[envs] = np.where(ended, 0, last + 1 - full)
        moved = envs[full & ~ended]
        for column in self._windows.values():
            column[moved, :-1] = column[moved, 1:]
        return completed

    def cut(self, observation: np.ndarray) -> Transition:
        """Ends all windows where the environments are now, as if the episodes were truncated.

        Args:
          observation: [E, *observation_shape], the present ones.
        """
        env, place = np.nonzero(np.arange(self._steps) < self._count[:, None])
        self.clear()
        return self._completed(env, place, observation[env])

    def window(self, env: int) -> dict[str, np.ndarray] | None:
        """Returns copies of an environment's unfinished transitions by column; None if there are none."""
        count = self._count[env]
        return {name: column[env, :count].copy() for name, column in self._windows.items()} if count else None

    def restore(self, env: int, window: Any) -> None:
        """Puts back what `window` returned.

        Raises:
          UserError: if it is something else.
        """
        count = 0
        try:
            for name, column in self._windows.items() if window is not None else ():
                count = len(window[name])
                if not 0 < count < self._steps or window[name].shape != (count, *column.shape[2:]):
                    raise ValueError(f"{name} has the shape {window[name].shape}")
                column[env, :count] = window[name]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(f"the last steps of an open episode cannot be used ({repr(error)[:300]})") from None
        self._count[env] = count

    def clear(self) -> None:
        """Drops all unfinished transitions."""
        self._count[:] = 0

    def _completed(self, envs: np.ndarray, places: np.ndarray, s_t: np.ndarray) -> Transition:
        """Returns copies of the transitions [M] at some places of some windows."""
        return Transition(**{name: column[envs, places] for name, column in self._windows.items()}, s_t=s_t)
