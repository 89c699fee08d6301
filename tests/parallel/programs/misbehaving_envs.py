"""An environment that does one thing wrong, at a given call on a given rank."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from hostile_envs import Walk, own_rank

RANK = own_rank()
"""Of this process; the processes of an AsyncVectorEnv do not know theirs."""
GOOD = np.zeros(3, np.float32)


class Unspeakable(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        """Raises."""
        raise RuntimeError("no words")


def _raise(error: BaseException) -> Callable[[], Any]:
    def throw() -> Any:
        raise error

    return throw


ANYWHERE: dict[str, Callable[[], Any]] = {
    "raises": _raise(RuntimeError("gone")),
    "exits": _raise(SystemExit(0)),
    "interrupts": _raise(KeyboardInterrupt()),
    "ends a generator": _raise(StopIteration()),
    "out of memory": _raise(MemoryError()),
    "unspeakable": _raise(Unspeakable()),
    "changes the folder": lambda: os.chdir("/"),
    "replaces a handler": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "is slow": lambda: time.sleep(0.3),
}
"""What may happen in any call, before it does its work."""
DEATHS: dict[str, Callable[[], Any]] = {"dies": lambda: os.kill(os.getpid(), signal.SIGKILL)}
"""What may happen in any call of an environment in a process of its own."""
ANSWERS: dict[str, dict[str, Any]] = {
    "reset": {
        "nothing": None,
        "the observation alone": GOOD,
        "another shape": (np.zeros(5, np.float32), {}),
        "another dtype": (np.array(["a", "b", "c"]), {}),
        "not a number": (GOOD * np.nan, {}),
        "infos of another type": (GOOD, [1, 2]),
    },
    "step": {
        "nothing": None,
        "four values": (GOOD, 1.0, False, {}),
        "another shape": (np.zeros(5, np.float32), 1.0, False, False, {}),
        "an object": (object(), 1.0, False, False, {}),
        "infinite as float32": (np.full(3, 1e300), 1.0, False, False, {}),
        "a reward that is no number": (GOOD, None, False, False, {}),
        "an infinite reward": (GOOD, 1e39, False, False, {}),
        "flags of another type": (GOOD, 1.0, "", None, {}),
        "flags that are neither": (GOOD, 1.0, np.zeros(2), False, {}),
        "infos of another type": (GOOD, 1.0, False, False, None),
        "infos of another shape": (GOOD, 1.0, False, False, {"x": np.zeros(3), 7: object()}),
    },
}
"""What a call may return."""
CALLS = ("construct", "reset", "step", "close", "get_state", "set_state")


class Misbehaves(Walk):
    """Behaves but for one call."""

    made: ClassVar[int] = 0

    def __init__(self, rank: int, call: str, at: int, what: str, saves: bool) -> None:
        """Takes the rank, the call, its number in this environment's life (of "construct": in the process), and what.

        Args:
          rank: that of the misbehaviour.
          call: one of CALLS.
          at: number of the call.
          what: of ANYWHERE, DEATHS or ANSWERS.
          saves: whether to offer get_state and set_state.
        """
        super().__init__()
        self._plan = (call, at, what) if rank == RANK else None
        self._counts: Counter[str] = Counter(construct=Misbehaves.made)
        Misbehaves.made += 1
        if saves:
            self.get_state = self._give_state
            self.set_state = self._take_state
        self._perhaps("construct")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts an episode, or not."""
        proper = super().reset(seed=seed)
        return self._perhaps("reset", proper)

    def step(self, action: np.int64) -> Any:
        """Walks, or not."""
        return self._perhaps("step", super().step(action))

    def close(self) -> None:
        """Closes, or not."""
        self._perhaps("close")

    def _give_state(self) -> Any:
        return self._perhaps("get_state", {"age": self._age})

    def _take_state(self, state: Any) -> None:
        self._perhaps("set_state")
        self._age = state["age"]

    def _perhaps(self, call: str, proper: Any = None) -> Any:
        number = self._counts[call]
        self._counts[call] += 1
        if self._plan is None or self._plan[:2] != (call, number):
            return proper
        what = self._plan[2]
        if what in ANYWHERE | DEATHS:
            (ANYWHERE | DEATHS)[what]()
            return proper
        return ANSWERS[call][what]


gym.register("Misbehaves-v0", entry_point=Misbehaves)
