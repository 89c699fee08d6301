"""How a price file is split into windows to train, validate and test on, and what a test leaves behind."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from market import LEAD

LETTERS = {-1: "s", 0: "f", 1: "l"}
"""Of positions, in the lines of results.jsonl: short, flat, long."""

Span = tuple[int, int]
"""Decisions after the closes of bars [first, last)."""


class Plan(NamedTuple):
    """How a price file is traded, and split."""

    train: int
    validate: int
    test: int
    """Bars of each part of a window; the next window begins `test` bars later."""
    bars_per_year: int
    block: int
    """Bars of a block of the bootstrap: about a day of hours, a month of days."""
    fee: float
    half_spread: float
    short: bool

    @property
    def cost(self) -> float:
        """Returns fee and half the spread."""
        return self.fee + self.half_spread


PLANS = {
    "forex": Plan(3_000, 500, 500, 6_225, 24, fee=2e-5, half_spread=5e-5, short=True),
    "stocks": Plan(1_008, 126, 126, 252, 21, fee=1e-4, half_spread=2e-4, short=False),
}
"""Forex: a commission of 20 per million and a spread of 1.2 pips. Stocks: 0.5 cents and a spread of 2 at 50."""


class Window(NamedTuple):
    """Three parts that follow one another."""

    train: Span
    validate: Span
    test: Span


class Tested(NamedTuple):
    """One run on one window."""

    setting: str
    window: int
    seed: int
    validation: np.ndarray
    """int64 [N], positions."""
    test: np.ndarray
    """int64 [N], positions."""


def windows(bars: int, plan: Plan) -> list[Window]:
    """Returns the windows that fit into a file."""
    found, first = [], LEAD
    while first + plan.train + plan.validate + plan.test < bars:
        edges = np.cumsum([first, plan.train, plan.validate, plan.test]).tolist()
        found.append(Window(*[(edges[i], edges[i + 1]) for i in range(3)]))
        first += plan.test
    return found


def encode(positions: Iterable[int]) -> str:
    """Returns positions as text: bars and letter of each stretch, such as 12f3l for 12 bars flat and 3 long."""
    letters = (LETTERS[int(position)] for position in positions)
    return "".join(f"{sum(1 for _ in stretch)}{letter}" for letter, stretch in itertools.groupby(letters))


def decode(text: str) -> np.ndarray:
    """Returns the positions int64 [N] that `encode` was given."""
    positions = {letter: position for position, letter in LETTERS.items()}
    stretches = re.findall(r"(\d+)([a-z])", text)
    return np.repeat([positions[letter] for _, letter in stretches], [int(bars) for bars, _ in stretches])
