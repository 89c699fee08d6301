"""Compares groups of runs as rliable does: IQM and probability of improvement, with stratified bootstrap intervals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import numpy as np

from hvd_dqn.envs.atari_scores import human_normalised
from hvd_dqn.errors import UserError
from hvd_dqn.report.elements import Cell, interval, number, section, swatch, table
from hvd_dqn.report.groups import Group, differences, flag, text_of
from hvd_dqn.report.reading import RunData
from hvd_dqn.statistics import interquartile_mean, probability_of_improvement, stratified_interval

FEW_SEEDS = 3
"""Fewer than these say little (Henderson et al. 2018, https://arxiv.org/abs/1709.06560)."""
OF_THE_TASK = ("env_kwargs", "protocol")
"""Fields of which scores must have the same value to be comparable."""
RETURN, HUMAN = "mean return", "human-normalised score"


class Estimate(NamedTuple):
    """A statistic with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Scores of groups, and what they say."""

    which: str
    """final, best or last."""
    unit: str
    tasks: list[str]
    scores: dict[str, np.ndarray]
    """float64 [R, T] by group: runs in the order of their seeds, tasks. What rliable takes."""
    iqm: dict[str, Estimate]
    improvement: dict[tuple[str, str], Estimate]
    """P(the first scores higher than the second)."""
    warnings: list[str]


def compare(groups: Sequence[Group], which: str) -> Comparison:
    """Compares the scores of groups over their environments.

    Args:
      groups: of runs that differ in seed and environment alone.
      which: final, best or last evaluation.

    Raises:
      UserError: if there is one group, a run has no such evaluation, or scores are not those of the same tasks on one
        scale.
    """
    if len(groups) < 2:
        raise UserError(
            "the runs differ in their seed alone, so that there is nothing to compare: give runs of two settings, or "
            "`hvd-dqn report` for one"
        )
    for name in OF_THE_TASK:
        values = sorted({str(run.config[name]) for group in groups for run in group.runs})
        if len(values) > 1:
            raise UserError(
                f"the runs are of different tasks: {flag(name)} is {' and '.join(values)}: compare one at a time"
            )
    tasks = sorted({str(run.config["env"]) for group in groups for run in group.runs})
    unit = RETURN if len(tasks) == 1 else HUMAN
    scores = {group.name: _scores(group, tasks, which, unit) for group in groups}
    iqm = {
        name: Estimate(interquartile_mean(own), *stratified_interval(interquartile_mean, own))
        for name, own in scores.items()
    }
    improvement = {
        (x, y): Estimate(
            probability_of_improvement(scores[x], scores[y]),
            *stratified_interval(probability_of_improvement, scores[x], scores[y]),
        )
        for x, y in itertools.combinations(scores, 2)
    }
    return Comparison(which, unit, tasks, scores, iqm, improvement, _warnings(groups, scores))


def as_text(comparison: Comparison) -> str:
    """Returns the comparison for a terminal."""
    width = max(map(len, comparison.scores))
    lines = [f"{_heading(comparison)}, interquartile mean with its 95 % interval:"]
    for name, found in comparison.iqm.items():
        runs = len(comparison.scores[name])
        counted = "1 run" if runs == 1 else f"{runs} runs"
        lines.append(f"  {name:<{width}}  {number(found.value):>8}  ({interval(found.low, found.high)}), {counted}")
    lines.append("Probability that a run of the first scores higher than one of the second:")
    pairs = [(f"{x}  over  {y}", found) for (x, y), found in comparison.improvement.items()]
    wide = max(len(pair) for pair, _ in pairs)
    lines += [f"  {pair:<{wide}}  {found.value:.2f}  ({found.low:.2f} to {found.high:.2f})" for pair, found in pairs]
    return "\n".join(lines)


def settings_text(groups: Sequence[Group]) -> str:
    """Returns the settings in which groups differ, one line each, for a terminal."""
    lines = ["Settings that differ:"]
    for name in differences([group.settings for group in groups]):
        values = ", ".join(text_of(group.settings.get(name)) for group in groups)
        lines.append(f"  {flag(name)}: {values}")
    return "\n".join(lines)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Returns the comparison for scripts; `scores` is in rliable's layout, algorithm -> [runs, tasks]."""
    return {
        "evaluation": comparison.which,
        "score": comparison.unit,
        "environments": comparison.tasks,
        "scores": {name: own.tolist() for name, own in comparison.scores.items()},
        "interquartile_mean": {name: found._asdict() for name, found in comparison.iqm.items()},
        "probability_of_improvement": [
            {"of": x, "over": y, **found._asdict()} for (x, y), found in comparison.improvement.items()
        ],
    }


def as_html(comparison: Comparison) -> str:
    """Returns the comparison as a section of a page."""
    names = list(comparison.scores)
    marked = {name: f'<span class="name">{swatch(i)}{escape(name)}</span>' for i, name in enumerate(names)}
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in comparison.warnings)
    iqm = table(
        ["Runs", Cell("Interquartile mean"), Cell("95 % interval"), Cell("Runs")],
        [
            [
                marked[name],
                Cell(number(v.value)),
                Cell(interval(v.low, v.high)),
                Cell(f"{len(comparison.scores[name])}"),
            ]
            for name, v in comparison.iqm.items()
        ],
        _heading(comparison),
    )
    pairs = table(
        ["A", "B", Cell("P(A > B)"), Cell("95 % interval")],
        [
            [marked[x], marked[y], Cell(f"{v.value:.2f}"), Cell(f"{v.low:.2f} to {v.high:.2f}")]
            for (x, y), v in comparison.improvement.items()
        ],
        "Probability of improvement: that a run of A scores higher than one of B on the same environment",
    )
    return section("Comparison", f'<div class="wide">{iqm}</div>{pairs}{warnings}')


def _heading(comparison: Comparison) -> str:
    return f"{comparison.unit.capitalize()} of the {comparison.which} evaluation on {', '.join(comparison.tasks)}"


def _scores(group: Group, tasks: Sequence[str], which: str, unit: str) -> np.ndarray:
    """Returns the scores float64 [R, T] of a group.

    Raises:
      UserError: as `compare`.
    """
    by_task: dict[str, list[float]] = {task: [] for task in tasks}
    for run in sorted(group.runs, key=lambda run: run.seed):
        env = str(run.config["env"])
        by_task[env].append(_score(run, env, which, unit))
    counts = {task: len(found) for task, found in by_task.items()}
    if len(set(counts.values())) != 1:
        counted = ", ".join(f"{count} runs of {task}" for task, count in counts.items())
        raise UserError(
            f"{group.name}: {counted}: give every group as many runs of every environment, or compare one environment "
            "at a time"
        )
    return np.array([by_task[task] for task in tasks]).T


def _score(run: RunData, env: str, which: str, unit: str) -> float:
    record = getattr(run, which)
    if record is None or record.get("mean_return") is None:
        remedy = "wait until it has ended, or give --score last or best" if which == "final" else "wait for the first"
        raise UserError(f"{run.place} has no {'final ' * (which == 'final')}evaluation yet: {remedy}")
    score = float(record["mean_return"])
    if unit == RETURN:
        return score
    normalised = human_normalised(env, score)
    if normalised is None:
        raise UserError(
            f"returns of {env} and of another environment have different scales, and no human score is known: compare "
            "one environment at a time"
        )
    return normalised


def _warnings(groups: Sequence[Group], scores: dict[str, np.ndarray]) -> list[str]:
    found = []
    few = [name for name, own in scores.items() if len(own) < FEW_SEEDS]
    if few:
        found.append(
            f"fewer than {FEW_SEEDS} seeds of {', '.join(few)}: the intervals are too narrow, and the next seed may "
            "reverse the order"
        )
    for group in groups:
        seeds = [(run.config["env"], run.seed) for run in group.runs]
        if len(set(seeds)) < len(seeds):
            found.append(f"{group.name}: a seed is there twice; such runs are no independent ones")
        if len({run.about.get("git_revision") for run in group.runs}) > 1:
            found.append(f"{group.name}: the runs are of different revisions of the program")
    return found
