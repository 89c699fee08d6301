"""What the tests of a walk-forward say: baselines, intervals, and the deflated Sharpe ratio."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from market import returns_of
from prices import Bars, load
from sharpe import block_bootstrap, deflated_sharpe, expected_best, moments, sharpe_ratio
from walk_forward import PLANS, Plan, Span, Tested, windows

FAST, SLOW = 10, 50
"""Bars of the two moving averages; customary values, not tuned."""
SHIFTS = 1_000
HOLD = "buy and hold"


class Row(NamedTuple):
    """One line of the table of a file: all tests, one after the other."""

    name: str
    total: float
    """Log return, in percent."""
    sharpe: float
    """Of a year."""
    position: float
    """Mean absolute position."""
    turnover: float
    """Units of equity that were traded in a year."""


class Verdict(NamedTuple):
    """What the tests of one file say. The agent is that of the median seed."""

    rows: list[Row]
    curves: dict[str, np.ndarray]
    """Cumulative log returns, in percent, of the seeds and the baselines; each float64 [N]."""
    times: np.ndarray
    """datetime64[s] [N]."""
    interval: tuple[float, float]
    """95 % of its Sharpe ratio of a year."""
    lead: tuple[float, float]
    """95 % of its log return of a year over buy-and-hold's, in percent."""
    deflated: float
    """Probability that its true Sharpe ratio is above 0, given the settings that were tried."""
    trials: int
    """Settings that were tried."""
    timing: float
    """Share of random shifts of its positions in time whose Sharpe ratio is at least as high."""


class Path(NamedTuple):
    """What was held over all tests, and what it earned."""

    positions: np.ndarray
    """int64 [N]."""
    returns: np.ndarray
    """float64 [N], log returns after costs."""
    traded: float
    """Units of equity that were traded."""

    @property
    def sharpe(self) -> float:
        """Returns the Sharpe ratio per bar."""
        return float(sharpe_ratio(np.expm1(self.returns)))


class Tests:
    """All runs on a price file: each setting, window and seed once."""

    def __init__(self, name: str, tested: list[Tested]) -> None:
        """Reads the prices.

        Args:
          name: forex or stocks.
          tested: the runs.

        Raises:
          ValueError: if one is missing.
        """
        self.plan, self.bars = PLANS[name], load(name)
        self.windows = windows(len(self.bars.close), self.plan)
        self._runs = {(one.setting, one.window, one.seed): one for one in tested}
        self.settings, self.seeds = (sorted({key[i] for key in self._runs}) for i in (0, 2))
        if len(self._runs) < len(self.settings) * len(self.seeds) * len(self.windows):
            raise ValueError(f"runs of {name} are missing: start the program again")

    def choose(self) -> list[str]:
        """Returns the setting of each window: that with the best median validation Sharpe ratio over the seeds."""
        return [
            max(self.settings, key=lambda setting: self._validation(setting, number))
            for number in range(len(self.windows))
        ]

    def path(self, settings: list[str], seed: int) -> Path:
        """Joins the tests of one seed, with one setting for each window."""
        parts = [self._runs[own, number, seed].test for number, own in enumerate(settings)]
        return self.closing_each(np.concatenate(parts))

    def closing_each(self, positions: np.ndarray) -> Path:
        """Returns what positions over all tests earn if each test begins and ends without one, as an agent's does."""
        parts = np.split(positions, [window.test[1] - self.span[0] for window in self.windows[:-1]])
        earned = [
            returns_of(self.bars, window.test[0], part, self.plan.cost)
            for window, part in zip(self.windows, parts, strict=True)
        ]
        return Path(positions, np.concatenate(earned), sum(_traded(part) for part in parts))

    def held(self, positions: np.ndarray) -> Path:
        """Returns what positions over all tests earn if they are closed at the end only, as a baseline's are."""
        return Path(positions, returns_of(self.bars, self.span[0], positions, self.plan.cost), _traded(positions))

    @property
    def span(self) -> Span:
        """Returns all tests as one."""
        return self.windows[0].test[0], self.windows[-1].test[1]

    def _validation(self, setting: str, number: int) -> float:
        runs = [self._runs[setting, number, seed] for seed in self.seeds]
        first = self.windows[number].validate[0]
        earned = [returns_of(self.bars, first, run.validation, self.plan.cost) for run in runs]
        return float(np.median([sharpe_ratio(np.expm1(returns)) for returns in earned]))


def moving_average_crossing(bars: Bars, span: Span, *, short: bool) -> np.ndarray:
    """Returns positions int64 [N]: long where the fast average of closes is above the slow one, else short or flat.

    Each average ends with the close after which it is made.
    """
    sums = np.append(0.0, np.cumsum(bars.close))
    ends = np.arange(*span) + 1
    fast, slow = ((sums[ends] - sums[ends - length]) / length for length in (FAST, SLOW))
    return np.where(fast > slow, 1, -1 if short else 0)


def judge(name: str, tested: list[Tested]) -> Verdict:
    """Compares the runs on a price file with the baselines."""
    tests = Tests(name, tested)
    chosen = tests.choose()
    agents = {seed: tests.path(chosen, seed) for seed in tests.seeds}
    ordered = sorted(agents.values(), key=lambda path: path.sharpe)
    agent, bars = ordered[len(ordered) // 2], len(ordered[0].returns)
    crossing = moving_average_crossing(tests.bars, tests.span, short=tests.plan.short)
    baselines = {
        HOLD: tests.held(np.ones(bars, int)),
        "cash": tests.held(np.zeros(bars, int)),
        f"moving averages {FAST}/{SLOW}": tests.held(crossing),
    }
    shifted = sorted(random_timing(tests, agent), key=lambda path: path.sharpe)
    named = {f"agent, median of {len(agents)} seeds": agent, f"agent, worst of {len(agents)} seeds": ordered[0]}
    named |= {**baselines, "random, equal turnover": shifted[SHIFTS // 2]}
    curves = {f"seed {seed}": path for seed, path in agents.items()} | baselines
    year = tests.plan.bars_per_year
    return Verdict(
        rows=[_row(own, path, tests.plan) for own, path in named.items()],
        curves={own: 100 * path.returns.cumsum() for own, path in curves.items()},
        times=tests.bars.times[tests.span[0] + 1 : tests.span[1] + 1],
        interval=_interval(np.expm1(agent.returns), np.sqrt(year), tests.plan.block),
        lead=_mean_interval(agent.returns - baselines[HOLD].returns, 100 * year, tests.plan.block),
        deflated=_deflated(tests, agent),
        trials=len(tests.settings),
        timing=sum(path.sharpe >= agent.sharpe for path in shifted) / SHIFTS,
    )


def random_timing(tests: Tests, agent: Path) -> list[Path]:
    """Returns the agent's positions shifted in time, the end to the front: equal turnover and position, no signal."""
    rng = np.random.default_rng(0)
    offsets = rng.integers(1, len(agent.positions), SHIFTS)
    return [tests.closing_each(np.roll(agent.positions, offset)) for offset in offsets]


def table(verdict: Verdict) -> str:
    """Returns the rows as a table in Markdown."""
    lines = ["| | log return | Sharpe of a year | mean position | turnover a year |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.name} | {row.total:+.1f} % | {row.sharpe:+.2f} | {row.position:.2f} | {row.turnover:.0f} |"
        for row in verdict.rows
    ]
    return "\n".join(lines)


def _row(name: str, path: Path, plan: Plan) -> Row:
    years = len(path.positions) / plan.bars_per_year
    sharpe = path.sharpe * np.sqrt(plan.bars_per_year)
    return Row(name, 100 * path.returns.sum(), sharpe, float(np.abs(path.positions).mean()), path.traded / years)


def _traded(positions: np.ndarray) -> float:
    return float(np.abs(np.diff(positions, prepend=0, append=0)).sum())


def _interval(simple: np.ndarray, factor: float, block: int) -> tuple[float, float]:
    low, high = block_bootstrap(simple, sharpe_ratio, block)
    return factor * low, factor * high


def _mean_interval(values: np.ndarray, factor: float, block: int) -> tuple[float, float]:
    low, high = block_bootstrap(values, lambda drawn: drawn.mean(axis=-1), block)
    return factor * low, factor * high


def _deflated(tests: Tests, agent: Path) -> float:
    """Returns the deflated Sharpe ratio; the trials' variance is that over all settings and seeds."""
    ratios = [
        tests.path([setting] * len(tests.windows), seed).sharpe for setting in tests.settings for seed in tests.seeds
    ]
    threshold = expected_best(float(np.var(ratios, ddof=min(1, len(ratios) - 1))), len(tests.settings))
    return deflated_sharpe(agent.sharpe, threshold, len(agent.returns), *moments(np.expm1(agent.returns)))
