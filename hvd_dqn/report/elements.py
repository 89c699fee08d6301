"""Elements of a page, as HTML text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

from hvd_dqn.report.drawing import style

NONE = "&ndash;"
"""HTML in place of a value that does not exist."""


class Cell(str):
    """HTML of a table's cell that holds a number, and so stands at the right."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], about: str, *, shown: bool = True) -> str:
    """Returns a table that scrolls where it is wider than the screen.

    Args:
      head: HTML of the columns' heads; a `Cell` where the column holds numbers.
      rows: HTML of the cells; the first of a row is its head.
      about: text that says what the table shows.
      shown: whether it stands above the table; otherwise it is for screen readers alone.
    """
    top = "".join(f'<th scope="col"{_right(cell)}>{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td{_right(cell)}>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    label = escape(about)
    above = f'<p class="caption">{label}</p>' if shown else ""
    return (
        f'{above}<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Sequence[tuple[str, str]], look: str) -> str:
    """Returns a list of names and their values, both HTML, of a class of the style."""
    return f'<dl class="{look}">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)}</dl>'


def folded(title: str, content: str) -> str:
    """Returns HTML content that opens at a click."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def section(title: str, content: str) -> str:
    """Returns a section of HTML content, or nothing without any."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def swatch(group: int, *, second: bool = False) -> str:
    """Returns a piece of a group's line with its marker."""
    colour, dashes, marker = style(group)
    ink = f"var(--c{colour})"
    pattern = f' stroke-dasharray="{"2.5 2.5" if second else dashes}"' if second or dashes else ""
    return (
        f'<svg class="swatch" viewBox="0 0 34 14" aria-hidden="true"><path d="M1 7H33" fill="none" stroke="{ink}" '
        f'stroke-width="2"{pattern}/><path d="{_SHAPES[marker]}" fill="{ink}" stroke="var(--paper)"/></svg>'
    )


def number(value: float | None) -> str:
    """Returns a number with as many digits as one reads."""
    if value is None:
        return NONE
    digits = 0 if abs(value) >= 1e3 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """Returns an interval, or nothing without one."""
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def duration(seconds: float) -> str:
    """Returns a time span in the units that one reads."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def moment(unix_time: float) -> str:
    """Returns a point in time, in local time with its zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(unix_time))


def _right(cell: str) -> str:
    return ' class="n"' if isinstance(cell, Cell) else ""


_SHAPES = {
    "o": "M17 3a4 4 0 1 0 .01 0z",
    "s": "M13 3h8v8h-8z",
    "^": "M17 2l4.6 8.6h-9.2z",
    "D": "M17 1.8l5.2 5.2-5.2 5.2-5.2-5.2z",
    "v": "M17 12l4.6-8.6h-9.2z",
    "P": "M15.4 2.5h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
}
"""Outlines of matplotlib's markers."""
