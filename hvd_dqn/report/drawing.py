"""Draws a chart as SVG that stands in an HTML page: its colours are variables of the page, its text is text."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from hvd_dqn.errors import UserError
from hvd_dqn.report.charts import TIME, Chart

COLOURS = 6
"""Of groups; the page's style gives them as --c0 to --c5 (Okabe and Ito 2008, https://jfly.uni-koeln.de/color)."""
DASHES = ("", "6 2.5", "1.5 2", "7 2 1.5 2", "3.5 1.8", "9 3")
"""Of groups, in units of the drawing."""
MARKERS = ("o", "s", "^", "D", "v", "P")
_SIZE = (440, 250)
"""Units of the drawing, width and height."""
_BOX = (0.115, 0.125, 0.865, 0.825)
"""Axes within the drawing: left, bottom, width, height."""
_INK = {"#010101": "var(--muted)", "#020202": "var(--rule)", "#030303": "var(--paper)"}
_INK |= {f"#0a0a{index:02x}": f"var(--c{index})" for index in range(COLOURS)}
_MUTED, _RULE, _PAPER = list(_INK)[:3]


def style(group: int) -> tuple[int, str, str]:
    """Returns a group's colour, dashes and marker; more groups than colours differ in their dashes."""
    turn = group // COLOURS
    return group % COLOURS, DASHES[(group + turn) % len(DASHES)], MARKERS[(group + turn) % len(MARKERS)]


def draw(chart: Chart) -> tuple[str, dict[str, Any]]:
    """Draws a chart.

    Returns:
      The SVG element, and what a script needs to find a point in it: the box of the axes in units of the drawing (left,
      top, width, height), and the limits of x and y.

    Raises:
      UserError: if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, MaxNLocator
    except ImportError as error:
        raise UserError(
            f"a report needs the extra [report]: make setup EXTRAS='atari report', or pip install 'hvd-dqn[report]' "
            f"({error})"
        ) from None
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 10.5, "path.simplify_threshold": 0.2}):
        figure = Figure(figsize=(_SIZE[0] / 72, _SIZE[1] / 72), dpi=72)
        axes = figure.add_axes(_BOX)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(_RULE)
        axes.tick_params(length=0, pad=7, labelcolor=_MUTED)
        axes.grid(axis="y", color=_RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        scale, x_unit = _unit(chart)
        for line in chart.lines:
            _add(axes, line, scale)
        axes.margins(x=0.02, y=0.06)
        if chart.from_zero:
            axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value) + x_unit))
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:.0%}" if chart.percent else short(value))
        )
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    width, height = _SIZE
    box = [_BOX[0] * width, (1 - _BOX[1] - _BOX[3]) * height, _BOX[2] * width, _BOX[3] * height]
    limits = sampled(np.array([left / scale, right / scale, bottom, top]), 7)
    return _inline(file.getvalue(), chart.key), {"box": [round(v, 1) for v in box], "x": limits[:2], "y": limits[2:]}


def short(value: float) -> str:
    """Returns a number in few characters: 12k, 1.5M, 0.02."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.3g}" if abs(value) > 1e-12 else "0"


def _unit(chart: Chart) -> tuple[float, str]:
    """Returns the factor from x to what the axis shows, and the unit there."""
    if chart.x_name != TIME:
        return 1.0, ""
    longest = max(float(line.x[-1]) for line in chart.lines)
    return (1.0, " s") if longest < 300 else (1 / 60, " min") if longest < 4 * 3600 else (1 / 3600, " h")


def _add(axes: Any, line: Any, scale: float) -> None:
    """Adds a line, its interval, and those of its seeds; each has the group's mark for `_inline`."""
    colour, dashes, marker = style(line.group)
    ink = f"#0a0a{colour:02x}"
    gid = f"group{line.group}"
    for x, y in line.seeds:
        axes.plot(x * scale, y, color=ink, linewidth=0.7, alpha=0.3, gid=gid)
    if line.low is not None and len(line.x) > 1:
        axes.fill_between(line.x * scale, line.low, line.high, color=ink, alpha=0.14, linewidth=0, gid=gid)
    pattern = "2.5 2.5" if line.second else dashes
    shape = (0, tuple(float(part) for part in pattern.split())) if pattern else "solid"
    axes.plot(
        *(line.x * scale, line.y),
        color=ink,
        linewidth=1.8,
        linestyle=shape,
        marker=marker,
        markevery=[len(line.x) - 1],
        markersize=6,
        markeredgecolor=_PAPER,
        markeredgewidth=1.2,
        clip_on=False,
        gid=gid,
    )


def _inline(svg: str, key: str) -> str:
    """Turns a file of matplotlib into an element of a page: no ids but its own, variables as colours, short numbers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true" focusable="false">', svg)
    named = set(re.findall(r'#([\w-]+)(?=["\)])', svg))

    def own_id(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("group"):
            return f' class="g{name.removeprefix("group")}"'
        return f' id="{key}-{name}"' if name in named else ""

    svg = re.sub(r' id="([^"]*)"', own_id, svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{key}-", svg).replace("xlink:href", "href")
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: _INK.get(match[0], match[0]), svg)
    svg = re.sub(r"font[\w-]*: [^;\"]*;? ?", "", svg)
    svg = re.sub(r' d="[^"]*"', lambda match: re.sub(r"(\d\.\d)\d+", r"\1", re.sub(r"\s+", " ", match[0])), svg)
    svg = re.sub(r'="(-?\d+\.\d)\d+"', r'="\1"', svg)
    return re.sub(r">\s+<", "><", svg).strip()


def sampled(values: np.ndarray, digits: int = 4) -> list[float]:
    """Returns numbers as JSON holds them in few characters."""
    return [float(f"{value:.{digits}g}") for value in values]
