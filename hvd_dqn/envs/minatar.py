"""MinAtar's games (Young and Tian 2019, https://arxiv.org/abs/1903.03176), with episodes that can be saved.

Importing this module registers them. It needs the extra [minatar], whose package is under the GPL.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from minatar.gym import BaseEnv, register_envs

_CONSTANT = ("channels", "action_map", "random")


class MinAtarGame(BaseEnv):
    """A game whose every episode depends on its seed and actions alone, and which gives its state.

    The package's own repeats the last action of the episode before, by chance, in an episode's first step.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        self.game.last_action = 0
        return super().reset(seed, options)

    def get_state(self) -> dict[str, Any]:
        """Returns the state of game and generator: numbers, lists and arrays."""
        game = {name: value for name, value in vars(self.game.env).items() if name not in _CONSTANT}
        return {
            "game": copy.deepcopy({name: _plain(value) for name, value in game.items()}),
            "last_action": int(self.game.last_action),
            "random": list(self.game.random.get_state()),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts a state back."""
        vars(self.game.env).update(copy.deepcopy(state["game"]))
        self.game.last_action = state["last_action"]
        self.game.random.set_state(tuple(state["random"]))
        self.game.env.random = self.game.random


def _plain(value: Any) -> Any:
    """Returns NumPy's scalars as Python's, in lists too."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


if "MinAtar/Breakout-v0" not in gym.registry:
    register_envs()
