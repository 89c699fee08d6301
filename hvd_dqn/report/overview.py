"""The first part of a page: how the runs ended, by group and one by one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from hvd_dqn.report.elements import NONE, Cell, duration, facts, interval, number, swatch, table
from hvd_dqn.report.groups import Group
from hvd_dqn.report.reading import WALL_SECONDS, Record, RunData

BIASED = "The best of several evaluations is biased upwards; the final evaluation, on new episodes, is not."


def tiles(run: RunData) -> str:
    """Returns the numbers of a single run: final, best and last evaluation, and its speed."""
    final, best, last, latest = run.final, run.best, run.last, run.latest
    parts = [
        _tile("Final evaluation", final, _final_note(run)),
        _tile("Best evaluation", best, f"{_where(best)}, the highest of {len(run.evaluations)}"),
        _tile("Last evaluation", last, _where(last)),
    ]
    speed = run.column("env_steps_per_second")[2]
    if len(speed):
        each = f" by {run.ranks} ranks, {number(float(speed.mean()) / run.ranks)} each" if run.ranks > 1 else ""
        took = f"{latest['env_steps']:,} in {duration(latest[WALL_SECONDS])}" if latest else ""
        parts.append(("Env steps per second", _big(number(float(speed.mean())), f"{took}{each}")))
    return facts(parts, "tiles")


def group_table(groups: Sequence[Group]) -> str:
    """Returns the evaluations of groups next to one another."""
    head = ["Runs", Cell("Seeds"), Cell("Final"), Cell("Best"), Cell("Last"), Cell("Env steps/s")]
    rows = []
    for index, group in enumerate(groups):
        speeds = [run.column("env_steps_per_second")[2] for run in group.runs]
        speed = float(np.concatenate(speeds).mean()) if any(map(len, speeds)) else None
        ranks = group.settings["ranks"]
        each = f'<span class="sub">{number(speed / ranks)} per rank</span>' if speed and ranks > 1 else ""
        rows.append(
            [
                f'<span class="name">{swatch(index)}{escape(group.name)}</span>',
                Cell(f"{len({run.seed for run in group.runs})}"),
                *(Cell(_summary(group, which)) for which in ("final", "best", "last")),
                Cell(number(speed) + each),
            ]
        )
    about = "Mean return over seeds, with its 95 % bootstrap interval"
    return f'<div class="wide">{table(head, rows, about)}</div><p class="note">{BIASED}</p>'


def run_table(groups: Sequence[Group]) -> str:
    """Returns all runs, one row each."""
    head = ["Run", Cell("Seed"), Cell("Ranks"), "State", Cell("Env steps"), Cell("Wall time")]
    head += [Cell("Final"), Cell("Best"), Cell("Last"), Cell("Checkpoints")]
    rows = []
    for index, group in enumerate(groups):
        for run in group.runs:
            latest = run.latest
            rows.append(
                [
                    f'<span class="name">{swatch(index) if len(groups) > 1 else ""}{escape(run.name)}</span>',
                    *(Cell(f"{run.seed}"), Cell(f"{run.ranks}"), run.state),
                    Cell(f"{latest['env_steps']:,}" if latest else NONE),
                    Cell(duration(latest[WALL_SECONDS]) if latest else NONE),
                    Cell(_score(run.final) + _sub(f"{run.final['episodes']} episodes" if run.final else "")),
                    *(Cell(_score(record) + _sub(_step(record))) for record in (run.best, run.last)),
                    Cell("<br>".join(f"{step:,}" for step in sorted(run.checkpoints)) or NONE),
                ]
            )
    return table(head, rows, "Mean returns; best and last with the env step of the evaluation, checkpoints by env step")


def _final_note(run: RunData) -> str:
    """Returns what the final evaluation is of, or why there is none."""
    if run.final is None:
        return "after the last env step"
    of = interval(run.final.get("low"), run.final.get("high"))
    return f"95 % interval {of}, {run.final['episodes']} new episodes of the best checkpoint"


def _tile(title: str, record: Record | None, note: str) -> tuple[str, str]:
    return title, _big(_score(record), note if record else ("none yet" if title != "Final evaluation" else note))


def _big(value: str, note: str) -> str:
    return f'<span class="value">{value}</span><span class="small">{note}</span>'


def _where(record: Record | None) -> str:
    return f"{record['episodes']} episodes at env step {record['env_steps']:,}" if record else ""


def _step(record: Record | None) -> str:
    return f"at {record['env_steps']:,}" if record else ""


def _score(record: Record | None) -> str:
    return number(record.get("mean_return")) if record else NONE


def _sub(text: str) -> str:
    return f'<span class="sub">{text}</span>' if text else ""


def _summary(group: Group, which: str) -> str:
    found = group.summary(which)
    if found is None:
        return NONE
    some = f" ({found['runs']} of {len(group.runs)} runs)" if found["runs"] < len(group.runs) else ""
    return number(found["mean_return"]) + _sub(interval(found["low"], found["high"]) + some)
