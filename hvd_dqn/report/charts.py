"""What is drawn of some groups of runs: charts of lines, by section of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hvd_dqn.report.curves import MOST_POINTS, Line, Points, mean_line
from hvd_dqn.report.groups import Group
from hvd_dqn.report.reading import RunData
from hvd_dqn.run.profile import PHASES

POINTS_OF_A_CHART = 800
"""Of all its means together, which bounds the size of a page."""
ENV_STEPS, TIME = "env steps", "wall time"

Read = Callable[[RunData], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Returns env steps, wall seconds and values, float64 [N] each."""


@dataclass(frozen=True)
class Chart:
    """Lines over one axis."""

    key: str
    """Of letters and hyphens, unique on the page."""
    title: str
    about: str
    x_name: str
    lines: list[Line]
    pair: tuple[str, str] | None = None
    """Names of the first and the second lines of the groups, where there are two."""
    percent: bool = False
    from_zero: bool = False

    @property
    def empty(self) -> bool:
        """Returns whether there is nothing to draw yet."""
        return not self.lines


def sections(groups: Sequence[Group]) -> dict[str, list[Chart]]:
    """Returns the charts by the title of their section, without those that have no line."""
    episodes = _span(run.config["evaluation_episodes"] for group in groups for run in group.runs)
    played = f"Mean return of {episodes} evaluation episodes"
    several = [group if group.settings["ranks"] > 1 else None for group in groups]
    found = {
        "Learning": [
            _chart(groups, "return", "Return", played, _evaluated("mean_return")),
            _chart(groups, "return-time", "Return over time", f"{played}.", _evaluated("mean_return"), x_name=TIME),
            _chart(
                *(groups, "training-return", "Return while training"),
                *("Mean of the last 100 training episodes, with random actions", _trained("mean_return")),
            ),
            _chart(
                *(groups, "epsilon", "Exploration", "Probability of a random action in training", _trained("epsilon")),
                from_zero=True,
            ),
        ],
        "Action values": [
            *_estimates(groups),
            _chart(groups, "q", "Mean Q", "Online value of the actions in training batches", _trained("mean_q")),
        ],
        "Updates": [
            _chart(groups, "loss", "Loss", "Mean over the global batch", _trained("loss"), from_zero=True),
            _chart(
                *(
                    groups,
                    "td-error",
                    "TD error",
                    "Mean absolute error over the global batch",
                    _trained("abs_td_error"),
                ),
                from_zero=True,
            ),
            *_priorities(groups),
        ],
        "Speed": [
            _chart(
                *(groups, "speed", "Throughput", "Env steps per second of all ranks, without evaluations"),
                _trained("env_steps_per_second"),
                from_zero=True,
            ),
            *_ranks_alone(several),
            _chart(
                *(several, "skew", "Skew of the ranks"),
                *("Lead of the fastest rank over the slowest, of an iteration", skew),
                percent=True,
                from_zero=True,
            ),
        ],
    }
    drawn = {title: [chart for chart in charts if not chart.empty] for title, charts in found.items()}
    return {title: charts for title, charts in drawn.items() if charts}


def phase_times(group: Group) -> dict[str, tuple[float, float, float]] | None:
    """Returns the mean microseconds per iteration of each phase: fastest, median and slowest rank; None before any."""
    found = {}
    for phase in PHASES:
        columns = [
            [run.column(f"{phase}_microseconds_{of}")[2] for run in group.runs] for of in ("min", "median", "max")
        ]
        low, median, high = (np.concatenate(values) for values in columns)
        if not len(median):
            return None
        found[phase] = (float(low.mean()), float(median.mean()), float(high.mean()))
    return found


def skew(run: RunData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns how much longer the first rank waits in the allreduce than the last, as a part of the iteration.

    All ranks leave an allreduce together, so what the fastest spends in it longer is its lead over the slowest.
    """
    env_steps, seconds, longest = run.column("allreduce_microseconds_max")
    shortest = run.column("allreduce_microseconds_min")[2]
    whole = sum(run.column(f"{phase}_microseconds_median")[2] for phase in PHASES)
    return env_steps, seconds, (longest - shortest) / np.maximum(whole, 1e-9)


def rank_alone(which: str) -> Read:
    """Returns a reader of the env steps per second that a rank would make of its share, if it waited for no other.

    Args:
      which: the statistic over the ranks of the time per iteration: max for the slowest rank, min for the fastest.
    """

    def read(run: RunData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        env_steps, seconds, busy = run.column(f"busy_microseconds_{which}")
        share = run.config["num_envs"] / run.ranks
        return env_steps, seconds, share * 1e6 / np.maximum(busy, 1e-9)

    return read


def _estimates(groups: Sequence[Group]) -> list[Chart]:
    """Returns the chart of the predicted against the realised return: both lines of one group, else differences."""
    predicted, realised = _evaluated("start_value"), _evaluated("discounted_return")
    if len(groups) == 1:
        about = "Discounted return of evaluation episodes"
        pair = ("predicted at the start", "realised")
        lines = _lines(groups, predicted, ENV_STEPS) + _lines(groups, realised, ENV_STEPS, second=True)
        return [Chart("estimate", "Predicted and realised value", about, ENV_STEPS, lines, pair)]

    def difference(run: RunData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        env_steps, seconds, values = predicted(run)
        return env_steps, seconds, values - realised(run)[2]

    about = "Value predicted at the start, minus the return that followed"
    return [_chart(groups, "estimate", "Over-estimation", about, difference)]


def _ranks_alone(groups: Sequence[Group | None]) -> list[Chart]:
    """Returns the chart of the ranks' own speeds: slowest and fastest of one group, else the slowest of each."""
    about = "Env steps per second that a rank would make of its share without waiting for the others"
    slowest = _lines(groups, rank_alone("max"), ENV_STEPS)
    if len(groups) > 1:
        return [Chart("ranks", "Throughput of the slowest rank", about, ENV_STEPS, slowest, from_zero=True)]
    lines = slowest + _lines(groups, rank_alone("min"), ENV_STEPS, second=True)
    pair = ("slowest rank", "fastest rank")
    return [Chart("ranks", "Throughput of a rank", about, ENV_STEPS, lines, pair, from_zero=True)]


def _priorities(groups: Sequence[Group]) -> list[Chart]:
    """Returns the chart of the priorities of prioritised replay: the largest and the mean one of one group."""
    about = "Of all stored transitions, to the power of --priority-exponent"
    means = _lines(groups, _trained("mean_priority"), ENV_STEPS)
    if len(groups) > 1:
        return [Chart("priorities", "Mean priority", about, ENV_STEPS, means, from_zero=True)]
    lines = means + _lines(groups, _trained("largest_priority"), ENV_STEPS, second=True)
    return [Chart("priorities", "Priorities", about, ENV_STEPS, lines, ("mean", "largest"), from_zero=True)]


def _chart(
    groups: Sequence[Group | None],
    key: str,
    title: str,
    about: str,
    read: Read,
    *,
    x_name: str = ENV_STEPS,
    percent: bool = False,
    from_zero: bool = False,
) -> Chart:
    lines = _lines(groups, read, x_name)
    return Chart(key, title, about.rstrip("."), x_name, lines, percent=percent, from_zero=from_zero)


def _lines(groups: Sequence[Group | None], read: Read, x_name: str, *, second: bool = False) -> list[Line]:
    most = min(MOST_POINTS, POINTS_OF_A_CHART // len(groups))
    found = []
    for index, group in enumerate(groups):
        if group is not None:
            curves = [_points(read(run), x_name) for run in group.runs]
            found.append(mean_line(index, group.name, curves, most, second=second))
    return [line for line in found if line is not None]


def _points(read: tuple[np.ndarray, np.ndarray, np.ndarray], x_name: str) -> Points:
    env_steps, seconds, values = read
    return (env_steps if x_name == ENV_STEPS else seconds), values


def _trained(field: str) -> Read:
    return lambda run: run.column(field)


def _evaluated(field: str) -> Read:
    return lambda run: run.column(field, "evaluation")


def _span(values: Iterable[int]) -> str:
    """Returns a number, or the range of several."""
    numbers = sorted(set(values))
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
