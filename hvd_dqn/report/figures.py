"""Figures of a page: a chart with the numbers behind it, and the bars of an iteration's phases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from hvd_dqn.report.charts import TIME, Chart, phase_times
from hvd_dqn.report.curves import Line
from hvd_dqn.report.drawing import draw, sampled, style
from hvd_dqn.report.elements import NONE, Cell, duration, folded, number, swatch, table
from hvd_dqn.report.groups import Group

_ROWS = 12
"""Of the table behind a chart."""


def figure(chart: Chart) -> str:
    """Returns a chart with its title, its description, its axis, and a table of its numbers."""
    svg, facts = draw(chart)
    about = f"{chart.about}."
    names = {line.group: line.name for line in chart.lines}
    label = f"{chart.title} over {chart.x_name}: {about} {_ends(chart)} Arrow keys move a cursor."
    data = {
        **facts,
        "percent": chart.percent,
        "time": chart.x_name == TIME,
        "lines": [_data(chart, line) for line in chart.lines],
    }
    keys = "".join(
        f'<span class="name" data-line="{group}-{second}">{swatch(group, second=bool(second))}{escape(name)}</span>'
        for group in names
        for second, name in enumerate(chart.pair or ())
    )
    return (
        f'<figure id="{chart.key}"><figcaption><h3>{escape(chart.title)}</h3><p>{escape(about)}</p>'
        + (f'<p class="pair">{keys}</p>' if keys else "")
        + f'</figcaption><div class="plot" tabindex="0" role="img" aria-label="{escape(label)}" '
        f'data-chart="{escape(json.dumps(data, separators=(",", ":")))}">{svg}</div>'
        f'<p class="axis">{chart.x_name}</p>{folded("Numbers", _numbers(chart))}</figure>'
    )


def phases(groups: Sequence[Group]) -> str:
    """Returns bars of the time that an iteration spends in each phase, by group; nothing before there is any."""
    times = {index: found for index, group in enumerate(groups) if (found := phase_times(group)) is not None}
    if not times:
        return ""
    names = list(next(iter(times.values())))
    many_ranks = any(groups[index].settings["ranks"] > 1 for index in times)
    range_of = " The thin line is the range from the fastest to the slowest rank." if many_ranks else ""
    whole = {index: sum(median for _, median, _ in found.values()) for index, found in times.items()}
    rows = "".join(
        f'<span class="phase">{phase}</span>'
        + "".join(_bar(index, found[phase], whole[index]) for index, found in times.items())
        for phase in names
    )
    head = ["Phase", *(Cell(escape(groups[index].name)) for index in times)]
    cells = [[phase, *(Cell(_spread(*found[phase])) for found in times.values())] for phase in names]
    return (
        '<figure id="phases"><figcaption><h3>Where an iteration&rsquo;s time goes</h3><p>Part of the mean iteration '
        f"of the median rank.{range_of}</p></figcaption>"
        f'<div class="phases" style="--rows:{len(times)}" aria-hidden="true">{rows}</div>'
        f"{folded('Numbers', table(head, cells, 'Time per iteration: median rank, and fastest to slowest'))}</figure>"
    )


def _bar(group: int, times: tuple[float, float, float], whole: float) -> str:
    low, median, high = (min(100.0, 100 * value / max(whole, 1e-9)) for value in times)
    spread = f'<i class="range" style="left:{low:.2f}%;width:{high - low:.2f}%"></i>' if high - low > 0.1 else ""
    colour = f"var(--c{style(group)[0]})"
    return (
        f'<span class="track g{group}"><i class="bar" style="width:{median:.2f}%;background:{colour}"></i>'
        f'{spread}</span><span class="time g{group}">{median:.0f} %</span>'
    )


def _spread(low: float, median: float, high: float) -> str:
    return f"{_span(median)} ({_span(low)} to {_span(high)})" if high > low else _span(median)


def _span(microseconds: float) -> str:
    return f"{microseconds:.3g} µs" if microseconds < 1e3 else f"{microseconds / 1e3:.3g} ms"


def _ends(chart: Chart) -> str:
    """Returns where each line ends, in words."""
    ends = [f"{_called(chart, line)} ends at {_value(chart, line.y[-1])}" for line in chart.lines]
    return f"{'; '.join(ends)}."


def _called(chart: Chart, line: Line) -> str:
    return f"{line.name}, {chart.pair[line.second]}" if chart.pair else line.name


def _value(chart: Chart, value: float) -> str:
    return f"{value:.1%}" if chart.percent else number(float(value))


def _data(chart: Chart, line: Line) -> dict[str, Any]:
    """Returns a line's points for the script."""
    found: dict[str, Any] = {"group": line.group, "second": line.second, "name": line.name}
    if chart.pair:
        found["name"] = chart.pair[line.second]
    found |= {"x": sampled(line.x, 7), "y": sampled(line.y)}
    if line.low is not None and line.high is not None:
        found |= {"low": sampled(line.low), "high": sampled(line.high)}
    return found


def _numbers(chart: Chart) -> str:
    """Returns a table of a few points of all lines, evenly spaced along the longest one."""
    longest = max(chart.lines, key=lambda line: len(line.x))
    chosen = np.unique(np.linspace(0, len(longest.x) - 1, _ROWS).astype(int))
    rows = []
    for x in longest.x[chosen]:
        cells = [Cell(_at(chart, line, float(x))) for line in chart.lines]
        rows.append([duration(x) if chart.x_name == TIME else f"{x:,.0f}", *cells])
    head = [chart.x_name, *(Cell(escape(_called(chart, line))) for line in chart.lines)]
    return table(head, rows, f"{chart.title} over {chart.x_name}", shown=False)


def _at(chart: Chart, line: Line, x: float) -> str:
    """Returns a line's value at the point that is nearest to x, with its interval; nothing beyond its ends."""
    if not line.x[0] <= x <= line.x[-1]:
        return NONE
    i = int(np.abs(line.x - x).argmin())
    value = _value(chart, line.y[i])
    if line.low is None or line.high is None:
        return value
    return f'{value}<span class="sub">{_value(chart, line.low[i])} to {_value(chart, line.high[i])}</span>'
