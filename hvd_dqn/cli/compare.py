"""hvd-dqn compare: statistics of runs with different settings."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.cli.report import all_presets, alone, read_runs, write_page
from hvd_dqn.errors import EXIT_DONE

PROGRAM = "hvd-dqn compare"
DESCRIPTION = """Compares runs with different settings: interquartile mean and probability of improvement.

  hvd-dqn compare runs/CartPole-v1/*                         prints them, with 95 % intervals
  hvd-dqn compare runs/CartPole-v1/* --output compare.html   writes the page of hvd-dqn report, too
  hvd-dqn compare runs/ALE-*/* --json > scores.json          scores as rliable takes them, [runs, games] by algorithm

Runs that differ in their seed alone are one group. At least three seeds of each are needed to say much."""


@dataclass(frozen=True)
class Asked:
    """What is asked for."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories or checkpoint paths, of at least two settings."""
    score: Literal["final", "best", "last"] = "final"
    """final: mean return of the final evaluation. best, last: of the periodic ones; best is biased upwards."""
    output: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """Page to write. Empty: none."""
    json: bool = False
    """Print one JSON object."""
    video: bool = True
    """Embed the newest video of each group of runs in the page; --no-video links to it."""


def main(arguments: Sequence[str]) -> int:
    """Compares and returns the exit code."""
    return alone(PROGRAM, lambda: _compare(parse_dataclass(Asked, arguments, PROGRAM, DESCRIPTION)))


def _compare(asked: Asked) -> int:
    from hvd_dqn.report.compare import as_html, as_json, as_text, compare, settings_text
    from hvd_dqn.report.groups import TASK, grouped

    runs = read_runs(asked.runs)
    groups = grouped(runs, all_presets(), together=TASK)
    found = compare(groups, asked.score)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    print(json.dumps(as_json(found)) if asked.json else f"{as_text(found)}\n{settings_text(groups)}")
    if asked.output:
        write_page(Path(os.path.expanduser(asked.output)), groups, asked.video, comparison=as_html(found))
    return EXIT_DONE
