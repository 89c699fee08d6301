"""Compares an exported network, read by its own runtime, with the trained agent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import RankFailure
from hvd_dqn.export.formats import Network
from hvd_dqn.training.trained import Trained

OBSERVATIONS = 512
_AT_ONCE = 100
"""Observations of one call; the last one has fewer, so that no size of a batch is fixed."""
_ROUNDING = 2e-4
"""Difference of two action values that rounding explains, relative to the largest one."""
_TIE = 1e-5
"""Two actions whose values differ by less, relative to the largest value, are equally good."""
_MOST_OTHERS = 0.01
"""Part of the observations in which a greedy action may be worse by more than that."""


class Agreement(NamedTuple):
    """How well two networks agree."""

    observations: int
    other_actions: int
    """Observations for which the greedy actions differ."""
    worse_actions: int
    """Those of them in which this is not a tie."""
    difference: float
    """The largest, of two action values."""
    largest: float
    """The largest action value, without its sign."""

    def __str__(self) -> str:
        """Returns it as a line."""
        actions = "the same greedy actions"
        if self.other_actions:
            actions += f" but for {self.other_actions} ties within rounding"
        return f"{self.observations} observations, {actions}, largest difference {self.difference:.1e}"

    @property
    def sufficient(self) -> bool:
        """Returns whether rounding explains all differences."""
        return (
            self.difference <= _ROUNDING * max(self.largest, 1e-6)
            and self.worse_actions <= _MOST_OTHERS * self.observations
        )


def random_observations(spaces: Spaces, count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Returns inputs of an exported network.

    Returns:
      Observations [N, *observation_shape], normal or uniform over the integers of their dtype; with action masks also
      masks int8 [N, A].
    """
    rng = np.random.default_rng(seed)
    shape, dtype = (count, *spaces.network_shape), spaces.observation_dtype
    if np.issubdtype(dtype, np.floating):
        observations = rng.normal(size=shape).astype(dtype)
    else:
        most = 1 if dtype == np.bool_ else min(spaces.largest_integer, np.iinfo(dtype).max)
        observations = rng.integers(spaces.num_categories or most + 1, size=shape).astype(dtype)
    if not spaces.masked:
        return (observations,)
    return observations, rng.integers(2, size=(count, spaces.num_actions)).astype(np.int8)


def agreement(network: Network, trained: Trained, inputs: tuple[np.ndarray, ...]) -> Agreement:
    """Compares a network's action values with those of the trained agent.

    Args:
      network: what was exported.
      trained: the agent.
      inputs: of `random_observations`.
    """
    count = len(inputs[0])
    stored = inputs[0]
    if trained.spaces.masked:  # as hvd_dqn/envs/masks.py packs them
        stored = np.concatenate([part.reshape(count, -1).astype(stored.dtype) for part in inputs], axis=1)
    parts = [slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE)]
    expected = np.concatenate([trained.values(stored[part]) for part in parts])  # [N, A] or [N, J, A]
    found = np.concatenate([network(*(column[part] for column in inputs)) for part in parts])
    valid = np.isfinite(expected)
    if found.shape != expected.shape or (valid != np.isfinite(found)).any():
        return Agreement(count, count, count, np.inf, np.inf)
    largest = float(np.abs(expected[valid]).max())
    greedy = found.argmax(axis=-1)  # [N] or [N, J]
    chosen = np.take_along_axis(expected, greedy[..., None], axis=-1)[..., 0]
    others, worse = expected.argmax(axis=-1) != greedy, expected.max(axis=-1) - chosen > _TIE * largest
    return Agreement(
        count,
        int(others.reshape(count, -1).any(axis=1).sum()),
        int(worse.reshape(count, -1).any(axis=1).sum()),
        float(np.abs(expected[valid] - found[valid]).max()),
        largest,
    )


def check(network: Network, trained: Trained) -> Agreement:
    """Compares what was written with the trained agent on random observations.

    Raises:
      RankFailure: if they differ by more than rounding.
    """
    found = agreement(network, trained, random_observations(trained.spaces, OBSERVATIONS))
    if not found.sufficient:
        raise RankFailure(
            "the exported network does not compute what the trained agent does, and nothing was written: on "
            f"{found.observations} observations {found.other_actions} greedy actions differ, and action values by up "
            f"to {found.difference:.1e}. Try another --format, and report this"
        )
    return found
