"""The environments: one position in one market, with costs in the reward and no look at the future.

Bar t ends at its closing price. The agent then sees prices up to that close and chooses a position; the order is filled
at the open of bar t + 1, and the reward is the change of equity from close t to close t + 1. It needs no price after
close t + 1.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from prices import Bars, load
from series import SERIES

HORIZONS = (1, 2, 4, 8, 16, 32)
"""Bars over which past log returns are observed."""
LEAD = max(HORIZONS)
"""Bars that must precede a decision."""
LARGEST_FEATURE = 5.0
"""Standard deviations at which features are clipped."""
TIME_HORIZON = 32
"""Bars before the end from which the time left is observed; further away it is 1."""
_HEIGHT, _BARS_SHOWN, _COLUMN = 360, 160, 4
_BACKGROUND, _LINE = (16, 20, 27), (200, 205, 212)
_COLOURS = {-1: (120, 62, 20), 0: (27, 33, 43), 1: (20, 70, 110)}
"""Of the band behind the price: short orange, flat grey, long blue."""


def log_return(before: Any, position: Any, gap: Any, bar: Any, cost: float) -> Any:
    """Computes the log growth of equity from one close to the next; arrays are taken elementwise.

    The old position earns the move from the close to the next open, where the new one is taken; that earns the move
    to the next close. Each position is a multiple of equity and is kept there. Minus infinity: ruin.

    Args:
      before: position until the open, in units of equity; -1 is short, 1 is long.
      position: position from the open on.
      gap: log return from the close to the next open.
      bar: log return from that open to its close.
      cost: fee and half the spread, as a part of the amount that is traded.
    """
    held = np.log1p(before * np.expm1(gap)) + np.log1p(position * np.expm1(bar))
    return held + np.log1p(-cost * np.abs(position - before))


def moves(bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    """Returns the log returns from close t to open t + 1, and from there to close t + 1: float64 [T - 1] each."""
    return np.log(bars.open[1:] / bars.close[:-1]), np.log(bars.close[1:] / bars.open[1:])


def returns_of(bars: Bars, first: int, positions: np.ndarray, cost: float) -> np.ndarray:
    """Computes what a sequence of positions earns: the environment's rewards, before they are scaled.

    Args:
      bars: T bars.
      first: bar after whose close the first position is chosen; there is none before.
      positions: float [N], chosen after closes first, first + 1, ...; the last one is closed at close first + N.
      cost: see `log_return`.

    Returns:
      float64 [N], log returns of equity.
    """
    gap, bar = (own[first : first + len(positions)] for own in moves(bars))
    earned = log_return(np.append(0.0, positions[:-1]), positions, gap, bar, cost)
    earned[-1] += np.log1p(-cost * abs(positions[-1]))
    return np.asarray(earned)


def indicators(bars: Bars, *, level: bool, leak: bool) -> np.ndarray:
    """Returns what is observed of prices, before it is standardised: float64 [T, F]. Row t needs prices up to close t.

    Args:
      bars: T bars.
      level: also the log price itself, for series that return to a level.
      leak: also the log return that a position chosen at t will earn, to prove that a leak would be found.
    """
    log_close = np.log(bars.close)
    columns = [np.append(np.zeros(h), log_close[h:] - log_close[:-h]) for h in HORIZONS]
    columns += [log_close] if level else []
    columns += [np.append(moves(bars)[1], 0.0)] if leak else []
    return np.stack(columns, axis=1)


class Scaling(NamedTuple):
    """Mean and standard deviation of each indicator over a training window, and of nothing else."""

    mean: np.ndarray
    """float64 [F]."""
    deviation: np.ndarray
    """float64 [F]; the first is that of one bar's log return, the unit of rewards."""

    @classmethod
    def of(cls, raw: np.ndarray) -> Scaling:
        """Returns the scaling of the indicators float64 [T, F] of a training window."""
        return cls(raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-12))

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Returns standardised indicators float32 [T, F]."""
        scaled = (raw - self.mean) / self.deviation
        return np.clip(scaled, -LARGEST_FEATURE, LARGEST_FEATURE).astype(np.float32)


class Episode(NamedTuple):
    """The part of a series that is traded: decisions after closes first, ..., last - 1."""

    bars: Bars
    features: np.ndarray
    """float32 [T, F], standardised."""
    first: int
    last: int


class Market(gym.Env[np.ndarray, np.int64]):
    """One position in one market. The observation is [F standardised indicators, position, time left].

    A reward is a log return of equity after costs, divided by the standard deviation of one bar's log return over the
    training window.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(self, scaling: Scaling, cost: float, short: bool, render_mode: str | None) -> None:
        """Declares the spaces.

        Args:
          scaling: of the indicators.
          cost: fee and half the spread, as a part of the amount that is traded.
          short: whether -1 is a position, in addition to 0 and 1.
          render_mode: `rgb_array` or None.

        Raises:
          ValueError: if the cost is negative, or half of the amount and more.
        """
        if not 0 <= cost < 0.5:
            raise ValueError(f"fee and half_spread sum up to {cost}: give parts of the amount, such as 0.0001")
        self.scaling, self.cost, self.render_mode = scaling, cost, render_mode
        self.positions = (-1, 0, 1) if short else (0, 1)
        self.action_space = gym.spaces.Discrete(len(self.positions))
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (len(scaling.mean) + 2,), np.float32)

    @property
    def reward_unit(self) -> float:
        """Returns the log return of equity that a reward of 1 stands for."""
        return float(self.scaling.deviation[0])

    def get_action_meanings(self) -> list[str]:
        """Returns the names of the actions."""
        return ["short", "flat", "long"][-len(self.positions) :]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode without a position."""
        super().reset(seed=seed)
        self.episode = self._next_episode()
        self._gap, self._bar = moves(self.episode.bars)
        self._now, self._position = self.episode.first, 0
        self._held: list[int] = []
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Orders a position, which is filled at the next open, and moves to the next close."""
        before, self._position = self._position, self.positions[int(action)]
        gap, bar = self._gap[self._now], self._bar[self._now]
        earned = float(log_return(before, self._position, gap, bar, self.cost))
        self._held.append(self._position)
        self._now += 1
        over = self._now == self.episode.last
        if over:
            earned += float(np.log1p(-self.cost * abs(self._position)))
        return self._observation(), earned / self.reward_unit, over, False, {}

    def render(self) -> np.ndarray:
        """Returns the last prices, with the position as the colour behind them: uint8 [H, W, 3]."""
        begin = max(0, self._now + 1 - _BARS_SHOWN)
        shown = self.episode.bars.close[begin : self._now + 1]
        low, high = shown.min(), max(shown.max(), shown.min() * (1 + 1e-9))
        rows = np.round((_HEIGHT - 21) * (high - shown) / (high - low)).astype(int) + 10
        picture = np.full((_HEIGHT, _BARS_SHOWN * _COLUMN, 3), _BACKGROUND, np.uint8)
        for index, (row, number) in enumerate(zip(rows, range(begin, self._now + 1), strict=True)):
            columns = slice(index * _COLUMN, (index + 1) * _COLUMN)
            if number > self.episode.first:
                picture[:, columns] = _COLOURS[self._held[number - self.episode.first - 1]]
            other = rows[max(index - 1, 0)]
            picture[min(row, other) - 1 : max(row, other) + 1, columns] = _LINE
        return picture

    def _next_episode(self) -> Episode:
        raise NotImplementedError

    def _observation(self) -> np.ndarray:
        left = min(1.0, (self.episode.last - self._now) / TIME_HORIZON)
        return np.append(self.episode.features[self._now], np.array([self._position, left], np.float32))


class Trading(Market):
    """Trades a price file."""

    def __init__(
        self,
        prices: str = "stocks",
        train: tuple[int, int] | None = None,
        window: tuple[int, int] | None = None,
        episode_bars: int = 128,
        fee: float = 1e-4,
        half_spread: float = 2e-4,
        short: bool = True,
        leak: bool = False,
        render_mode: str | None = None,
    ) -> None:
        """Reads the prices.

        Args:
          prices: `forex`, `stocks`, or the path of a CSV file.
          train: bars [first, last) on which features are scaled; all, unless given.
          window: bars [first, last) after whose closes a position is chosen; those of `train`, unless given.
          episode_bars: bars of an episode, whose start is random; 0 for the whole window.
          fee: as a part of the amount that is traded.
          half_spread: half the difference of ask and bid, as a part of the price.
          short: whether -1 is a position, in addition to 0 and 1.
          leak: whether the next return is observed, to prove that a leak would be found.
          render_mode: `rgb_array` or None.

        Raises:
          ValueError: if the file or a window cannot be used.
        """
        bars = load(prices)
        raw = indicators(bars, level=False, leak=leak)
        fitted = _window(train or (LEAD, len(bars.close) - 1), len(bars.close), "train")
        self.window = _window(window or fitted, len(bars.close), "window")
        self._bars, self._episode_bars = bars, episode_bars
        super().__init__(Scaling.of(raw[slice(*fitted)]), fee + half_spread, short, render_mode)
        self._features = self.scaling(raw)

    def _next_episode(self) -> Episode:
        first, last = self.window
        if 0 < self._episode_bars < last - first:
            first = int(self.np_random.integers(first, last - self._episode_bars + 1))
            last = first + self._episode_bars
        return Episode(self._bars, self._features, first, last)


class GeneratedTrading(Market):
    """Trades generated prices with a known optimal policy. Each episode is a new path.

    Indicators are scaled on a path of their own. Of a mean-reverting series the log price is observed, too.
    """

    def __init__(
        self,
        series: str = "mean-reverting",
        episode_bars: int = 128,
        fee: float = 1e-3,
        half_spread: float = 2e-3,
        leak: bool = False,
        render_mode: str | None = None,
    ) -> None:
        """Chooses a series.

        Args:
          series: mean-reverting or random-walk.
          episode_bars: bars of an episode.
          fee: as a part of the amount that is traded.
          half_spread: half the difference of ask and bid, as a part of the price.
          leak: whether the next return is observed.
          render_mode: `rgb_array` or None.

        Raises:
          ValueError: if there is no such series.
        """
        if series not in SERIES:
            raise ValueError(f"no series {series!r}: choose from {', '.join(SERIES)}")
        if episode_bars < 1:
            raise ValueError(f"episode_bars is {episode_bars}: give at least 1")
        self._draw, self._episode_bars = SERIES[series], episode_bars
        self._level, self._leak = series == "mean-reverting", leak
        super().__init__(_scaling(series, leak), fee + half_spread, short=True, render_mode=render_mode)

    @property
    def episode_bars(self) -> int:
        """Returns the decisions in an episode."""
        return self._episode_bars

    @property
    def state(self) -> float:
        """Returns what the optimal policy knows: the log price if it returns to a level, otherwise the next return."""
        return float(np.log(self.episode.bars.close[self._now]) if self._level else self._bar[self._now])

    def _next_episode(self) -> Episode:
        bars = self._draw(self.np_random, LEAD + self._episode_bars + 1)
        raw = indicators(bars, level=self._level, leak=self._leak)
        return Episode(bars, self.scaling(raw), LEAD, LEAD + self._episode_bars)


@functools.cache
def _scaling(series: str, leak: bool) -> Scaling:
    """Returns the scaling of a generated series, from a path that no episode has."""
    bars = SERIES[series](np.random.default_rng(0), 20_000)
    return Scaling.of(indicators(bars, level=series == "mean-reverting", leak=leak)[LEAD:])


def _window(asked: tuple[int, int], bars: int, name: str) -> tuple[int, int]:
    """Returns a window as it was asked for.

    Raises:
      ValueError: if it does not fit into the series.
    """
    first, last = asked
    if not LEAD <= first < last < bars:
        raise ValueError(
            f"{name} is [{first}, {last}): the file has {bars} bars, so give {LEAD} <= first < last <= {bars - 1}"
        )
    return first, last


gym.register("Trading-v0", entry_point=Trading)
gym.register("GeneratedTrading-v0", entry_point=GeneratedTrading)
