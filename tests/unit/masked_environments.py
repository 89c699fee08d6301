"""Environments whose valid actions depend on the state, in every form in which masks come."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper

CELLS, ACTIONS, LONGEST = 7, 4, 9
FAULTS: dict[str, Any] = {
    "zeros": np.zeros(ACTIONS, np.int8),
    "length": np.ones(ACTIONS + 1, np.int8),
    "values": np.full(ACTIONS, 2, np.int8),
    "missing": None,
}
"""Masks that an environment may give by mistake."""


def mask_of(cell: int) -> np.ndarray:
    """Returns which actions are valid in a cell: two or three of four."""
    return np.array([(cell + action) % 3 > 0 for action in range(ACTIONS)], np.int8)


class Gated(gym.Env[Any, Any]):
    """Jumps between cells; an action that is not valid ends the episode with a reward of -1000.

    Other steps pay 1. An episode ends by chance, with a mask of zeros, or is truncated after nine steps.
    """

    action_space = gym.spaces.Discrete(ACTIONS)
    valid_steps: ClassVar[int] = 0
    invalid_steps: ClassVar[int] = 0

    def __init__(
        self, form: str = "infos", strict: bool = False, fault: str = "", fault_at: int = 0, **of_the_vector_form: Any
    ) -> None:
        """Takes where the mask is: "infos", "dict", "category" (a Discrete observation) or "none"."""
        self._form, self._strict, self._fault, self._fault_at = form, strict, fault, fault_at
        box = gym.spaces.Box(-10.0, 10.0, (2, 1), np.float32)
        masks = gym.spaces.MultiBinary(ACTIONS)
        spaces: dict[str, gym.Space[Any]] = {
            "dict": gym.spaces.Dict({"action_mask": masks, "here": box}),
            "category": gym.spaces.Discrete(CELLS),
        }
        self.observation_space = spaces.get(form, box)
        self._cell, self._age, self._life = 0, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts in a random cell."""
        super().reset(seed=seed)
        self._cell, self._age = int(self.np_random.integers(CELLS)), 0
        return self._shown(mask_of(self._cell))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Jumps."""
        self._age += 1
        self._life += 1
        if not mask_of(self._cell)[action]:
            type(self).invalid_steps += 1
            if self._strict:
                raise RuntimeError(f"action {action} is not valid in cell {self._cell}")
            return *self._over(), -1000.0, True, False, self._shown(np.zeros(ACTIONS, np.int8))[1]
        type(self).valid_steps += 1
        self._cell = int(self._cell + action + self.np_random.integers(3)) % CELLS
        over = bool(self.np_random.random() < 0.1)
        mask = np.zeros(ACTIONS, np.int8) if over else mask_of(self._cell)
        if self._life == self._fault_at:
            over, mask = False, FAULTS[self._fault]
        observation, info = self._shown(mask)
        return observation, 1.0, over, not over and self._age == LONGEST, info

    def _over(self) -> tuple[Any]:
        return (self._shown(np.zeros(ACTIONS, np.int8))[0],)

    def _shown(self, mask: Any) -> tuple[Any, dict[str, Any]]:
        here = np.array([[self._cell], [self._age]], np.float32)
        if self._form == "dict":
            return {"action_mask": mask, "here": here}, {}
        observation = self._cell if self._form == "category" else here
        return observation, {} if self._form == "none" or mask is None else {"action_mask": mask}


class WithoutFinalMasks(VectorWrapper):
    """Gives the last observations of episodes, and no infos of them."""

    def step(self, actions: Any) -> Any:
        """Steps, and drops the final infos."""
        *answer, info = self.env.step(actions)
        return *answer, {key: value for key, value in info.items() if "final_info" not in key}


def make_vector(
    num_envs: int,
    mode: str = "NextStep",
    final_masks: bool = True,
    fault: str = "",
    fault_at: int = 0,
    **arguments: Any,
) -> VectorEnv[Any, Any, Any]:
    """Makes the native vector form; only its second member has the fault."""

    def member(index: int) -> gym.Env[Any, Any]:
        return Gated(**arguments, fault=fault if index == 1 else "", fault_at=fault_at if index == 1 else 0)

    vector = SyncVectorEnv(
        [lambda index=index: member(index) for index in range(num_envs)],
        autoreset_mode=AutoresetMode(mode),
        observation_mode="same",
    )
    return vector if final_masks else WithoutFinalMasks(vector)


class MaskedImage(gym.Env[Any, Any]):
    """Shows an image with its channels first, and a mask."""

    observation_space = gym.spaces.Dict(
        {"image": gym.spaces.Box(0, 255, (2, 40, 50), np.uint8), "action_mask": gym.spaces.MultiBinary(2)}
    )
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws an image."""
        super().reset(seed=seed)
        image = self.np_random.integers(256, size=(2, 40, 50)).astype(np.uint8)
        return {"image": image, "action_mask": np.array([0, 1])}, {}


def register_masked() -> None:
    """Registers the environments with Gymnasium once."""
    if "Gated-v0" not in gym.registry:
        gym.register("Gated-v0", entry_point=Gated, vector_entry_point=make_vector)
        gym.register("MaskedImage-v0", entry_point=MaskedImage)


register_masked()
