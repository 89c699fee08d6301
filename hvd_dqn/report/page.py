"""The page of some runs: one HTML file that needs no other, no network and no script to be read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from hvd_dqn.report.charts import sections
from hvd_dqn.report.elements import duration, moment, section, swatch
from hvd_dqn.report.figures import figure, phases
from hvd_dqn.report.films import films
from hvd_dqn.report.groups import Group
from hvd_dqn.report.overview import group_table, run_table, tiles
from hvd_dqn.report.reading import WALL_SECONDS, RunData
from hvd_dqn.report.settings import machines, settings
from hvd_dqn.version import __version__

MEANS = (
    "Lines are means over seeds with 95 % percentile bootstrap intervals, as far as the shortest run; thin lines are "
    "the seeds."
)
_HERE = Path(__file__).parent


def page(
    groups: Sequence[Group],
    folder: Path,
    *,
    comparison: str = "",
    embedded: bool = True,
    refresh_seconds: int = 0,
) -> str:
    """Returns the page.

    Args:
      groups: of runs.
      folder: where the page will be.
      comparison: HTML of a section on how the groups compare.
      embedded: whether the page holds videos.
      refresh_seconds: after which a browser loads the page again; 0 for never.

    Raises:
      UserError: if matplotlib is not installed.
    """
    runs = [run for group in groups for run in group.runs]
    title = ", ".join(dict.fromkeys(str(run.config["env"]) for run in runs))
    head = tiles(runs[0]) if len(runs) == 1 else section("Results", group_table(groups))
    drawn = sections(groups)
    speed = "".join(map(figure, drawn.pop("Speed", []))) + phases(groups)
    charts = "".join(section(name, _grid("".join(map(figure, found)))) for name, found in drawn.items())
    empty = "" if drawn or speed else '<p class="note">No metrics have been written yet.</p>'
    refresh = f'<meta http-equiv="refresh" content="{refresh_seconds}">' if refresh_seconds else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">{refresh}<title>{escape(title)}</title>'
        f"<style>{(_HERE / 'page.css').read_text()}{_toggles(len(groups))}</style></head><body>"
        f"<header>{_top(title, groups, runs)}</header>"
        + (_legend(groups) if len(groups) > 1 else "")
        + f"<main>{head}{comparison}{empty}{charts}{section('Speed', _grid(speed) if speed else '')}"
        f"{section('Video', films(groups, folder, embedded=embedded))}"
        f"{section('Runs', run_table(groups) if len(runs) > 1 else '')}"
        f"{section('Settings', settings(groups))}{section('Machine and versions', machines(groups))}</main>"
        f"<footer>{_notes(groups)}</footer><script>{(_HERE / 'page.js').read_text()}</script></body></html>\n"
    )


def _top(title: str, groups: Sequence[Group], runs: Sequence[RunData]) -> str:
    """Returns the heading: what was run, how far it is, and since when that is known."""
    running = [run for run in runs if run.state != "finished"]
    if len(runs) == 1:
        run, latest = runs[0], runs[0].latest
        ranks = "1 rank" if run.ranks == 1 else f"{run.ranks} ranks"
        steps = latest["env_steps"] if latest else 0
        whole = f"{steps:,} of {run.config['total_env_steps']:,} env steps"
        took = f" in {duration(latest[WALL_SECONDS])}" if latest else ""
        lead = f'<span class="state">{run.state}</span> {whole}{took} on {ranks}, seed {run.seed}.'
        over = escape(run.place)
    else:
        lead = _count(runs, groups)
        over = "hvd_dqn"
    as_of = ""
    if running:
        which = "Still running" if any(run.state == "running" for run in running) else "Unfinished"
        as_of = f" {which}, as of {moment(time.time())}."
    return f'<p class="over">{over}</p><h1>{escape(title)}</h1><p class="lead">{lead}{as_of}</p>'


def _count(runs: Sequence[RunData], groups: Sequence[Group]) -> str:
    if len(groups) == 1:
        return f"{len(runs)} runs that differ in their seed alone."
    alone = len(groups) == len(runs)
    return f"{len(runs)} runs." if alone else f"{len(runs)} runs in {len(groups)} groups, each of several seeds."


def _legend(groups: Sequence[Group]) -> str:
    boxes = "".join(
        f'<label for="group{index}"><input type="checkbox" id="group{index}" checked>{swatch(index)}'
        f"{escape(group.name)}</label>"
        for index, group in enumerate(groups)
    )
    return f'<div class="legend"><fieldset aria-label="Groups shown in the charts">{boxes}</fieldset></div>'


def _toggles(groups: int) -> str:
    """Returns the style that hides a group whose box is not checked; it needs no script."""
    return "".join(f"body:has(#group{i}:not(:checked)) .g{i}{{display:none}}" for i in range(groups))


def _grid(content: str) -> str:
    return f'<div class="charts">{content}</div>'


def _notes(groups: Sequence[Group]) -> str:
    """Returns how to read the page."""
    several = any(len(group.runs) > 1 for group in groups)
    notes = [
        MEANS * several,
        "Wall time leaves out the breaks of a resumed run.",
        f"hvd_dqn {__version__}, {moment(time.time())}.",
    ]
    return f"<p>{' '.join(filter(None, notes))}</p>"
