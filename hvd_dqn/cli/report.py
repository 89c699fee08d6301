"""hvd-dqn report: one page on one run or several, also while they train."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.cli.ranks import refuse, require_one_process
from hvd_dqn.config import Config, flatten, replace
from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.errors import EXIT_DONE, UserError
from hvd_dqn.files import write_file
from hvd_dqn.locations import is_url
from hvd_dqn.presets import PRESETS
from hvd_dqn.run.stopping import StopRequest

if TYPE_CHECKING:
    from hvd_dqn.report.groups import Group, Preset
    from hvd_dqn.report.reading import RunData

PROGRAM = "hvd-dqn report"
DESCRIPTION = """Writes one HTML page on one run or several, also while they train.

  hvd-dqn report runs/CartPole-v1/first                  writes runs/CartPole-v1/first/report.html
  hvd-dqn report runs/CartPole-v1/* --output all.html    runs that differ in their seed alone are one curve
  hvd-dqn report runs/CartPole-v1/first --json           prints the numbers, and writes no page

The page needs no network and no other file."""


@dataclass(frozen=True)
class Asked:
    """What is asked for."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories or checkpoint paths."""
    output: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """Page to write. Empty: report.html, in the run directory of a single run, otherwise in the working folder."""
    json: bool = False
    """Print the numbers as one JSON object. Writes a page only with --output."""
    video: bool = True
    """Embed the newest video of each group of runs; --no-video links to it."""
    refresh_seconds: int = 0
    """Seconds after which a browser loads the page again. 0: never."""


def main(arguments: Sequence[str]) -> int:
    """Reports and returns the exit code."""
    return alone(PROGRAM, lambda: _report(parse_dataclass(Asked, arguments, PROGRAM, DESCRIPTION)))


def alone(program: str, work: Callable[[], int]) -> int:
    """Runs a program of one process and returns its exit code; that of a user's mistake if it raises UserError."""
    launch = read_launch()
    try:
        require_one_process(launch, f"{program} is run")
        return work()
    except UserError as error:
        return refuse(program, error, launch, StopRequest())


def read_runs(places: Sequence[str]) -> list[RunData]:
    """Reads the runs of a command line.

    Raises:
      UserError: if there is none, or one of them cannot be read.
    """
    from hvd_dqn.report.reading import read_run

    if not places:
        raise UserError("no run is given: give run directories, such as runs/CartPole-v1/first")
    expanded = dict.fromkeys(place if is_url(place) else os.path.expanduser(place).rstrip("/") for place in places)
    defaults = flatten(Config())
    return [read_run(place, defaults) for place in expanded]


def all_presets() -> list[Preset]:
    """Returns all presets with their settings."""
    from hvd_dqn.report.groups import Preset

    return [Preset(name, flatten(replace(Config(), flat))) for name, flat in PRESETS.items()]


def write_page(
    path: Path, groups: Sequence[Group], asked_video: bool, refresh_seconds: int = 0, comparison: str = ""
) -> None:
    """Writes the page of some groups, and prints where.

    Raises:
      UserError: if it cannot be written, or matplotlib is not installed.
    """
    from hvd_dqn.report.page import page

    path = Path(os.path.realpath(path))
    text = page(groups, path.parent, comparison=comparison, embedded=asked_video, refresh_seconds=refresh_seconds)
    content = text.encode()
    try:
        write_file(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}: choose another place with --output") from None
    print(f"{path}: {len(content) / 1e6:.2f} MB", file=sys.stderr, flush=True)


def _report(asked: Asked) -> int:
    from hvd_dqn.report.groups import grouped
    from hvd_dqn.report.numbers import numbers

    if asked.refresh_seconds < 0:
        raise UserError(f"--refresh-seconds is {asked.refresh_seconds}: give 0 or more")
    runs = read_runs(asked.runs)
    groups = grouped(runs, all_presets())
    if asked.json:
        print(json.dumps(numbers(groups)))
    if asked.output or not asked.json:
        folder = Path(runs[0].place) if len(runs) == 1 and not is_url(runs[0].place) else Path()
        path = Path(os.path.expanduser(asked.output)) if asked.output else folder / "report.html"
        write_page(path, groups, asked.video, asked.refresh_seconds)
    return EXIT_DONE
