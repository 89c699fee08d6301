"""Tables and a picture of the measured strategies, and of the model of more workers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from parts.link_model import LINKS, Link
from parts.strategy_cases import CONDITIONS, SPEEDS, STRATEGIES, Key
from parts.strategy_model import Work, env_steps_per_second

WORKERS_MODELLED = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LINKS_MODELLED = (*LINKS[:2], Link("1 Gbit/s, 1 ms", 1e-3, 1.25e8), Link("100 Mbit/s, 10 ms", 1e-2, 1.25e7))


def report(runs: dict[Key, dict[str, Any]]) -> None:
    """Prints speeds, staleness and returns, the median over the seeds."""
    for workers, condition, env_steps in sorted({key[1:4] for key in runs}):
        print(f"\n{workers} workers, {condition}, CartPole, {env_steps:,} env steps")
        titles = ("env steps/s", "updates/s", "staleness", "mean return", "seconds")
        print(f"  {'strategy':<12}{''.join(f'{title:>13}' for title in titles)}")
        for name in STRATEGIES:
            found = [record for key, record in runs.items() if key[:4] == (name, workers, condition, env_steps)]
            if found:
                means = (
                    *(np.median([record[field] for record in found]) for field in SPEEDS),
                    np.median([record["staleness"].get("staleness_mean", math.nan) for record in found]),
                    np.mean([np.mean([value for _, _, value in record["curve"]]) for record in found]),
                    np.median([record["curve"][-1][0] for record in found]),
                )
                print(f"  {name:<12}{''.join(f'{mean:>13,.1f}' for mean in means)}")


def predict(setting: str, work: Work) -> None:
    """Prints the predicted speed of each strategy, and which is the fastest where."""
    print(f"\nmodel, {setting}: env steps/s, weak scaling; * is the fastest")
    for link in LINKS_MODELLED:
        for slowest in (1.0, 4.0):
            print(f"  {link.name}{', one worker at a quarter' if slowest > 1 else ''}")
            speeds = {name: _speeds(name, work, link, slowest) for name in STRATEGIES}
            fastest = [max(speeds, key=lambda name: speeds[name][i]) for i in range(len(WORKERS_MODELLED))]
            print(f"    {'workers':<12}{''.join(f'{w:>12,}' for w in WORKERS_MODELLED)}")
            for name, values in speeds.items():
                marks = ["*" if name == best else " " for best in fastest]
                cells = (f"{value:>11,.0f}{mark}" for value, mark in zip(values, marks, strict=True))
                print(f"    {name:<12}{''.join(cells)}")


def _speeds(name: str, work: Work, link: Link, slowest: float) -> list[float]:
    strategy = STRATEGIES[name]
    return [
        env_steps_per_second(strategy.kind, work, workers, link, period=strategy.period, slowest=slowest)
        for workers in WORKERS_MODELLED
    ]


def draw(runs: dict[Key, dict[str, Any]], works: dict[str, Work], path: Path) -> None:
    """Draws returns over env steps and wall time, measured speeds, and the model's."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
    workers, env_steps = max((key[1], key[3]) for key in runs)
    of_size = {key: record for key, record in runs.items() if (key[1], key[3]) == (workers, env_steps)}
    far = next((name for name in reversed(CONDITIONS) if any(key[2] == name for key in of_size)), "here")
    _draw_curves(axes[0, 0], of_size, "here", 1, "env steps")
    _draw_curves(axes[0, 1], of_size, far, 0, "seconds")
    _draw_speeds(axes[1, 0], runs)
    if works:
        _draw_model(axes[1, 1], *next(iter(works.items())))
    figure.savefig(path, dpi=130)


def _draw_curves(axes: Any, runs: dict[Key, dict[str, Any]], condition: str, column: int, label: str) -> None:
    """Draws the mean over the seeds of the greedy return."""
    for color, name in enumerate(STRATEGIES):
        curves = [np.array(r["curve"]) for key, r in runs.items() if (key[0], key[2]) == (name, condition)]
        if curves:
            length = min(map(len, curves))
            mean = np.mean([curve[:length] for curve in curves], axis=0)  # [N, 3]
            axes.plot(mean[:, column], mean[:, 2], f"C{color}", label=f"{name}, seeds: {len(curves)}")
    workers = {key[1] for key in runs}
    axes.set(xlabel=label, ylabel="mean greedy return", title=f"CartPole, {max(workers)} workers, {condition}")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)


def _draw_speeds(axes: Any, runs: dict[Key, dict[str, Any]]) -> None:
    """Draws bars of the measured speeds, whatever the length of the runs."""
    places = sorted({key[1:3] for key in runs}, key=lambda place: (place[0], list(CONDITIONS).index(place[1])))
    width = 0.8 / len(STRATEGIES)
    for color, name in enumerate(STRATEGIES):
        for position, place in enumerate(places):
            found = [r["env_steps_per_second"] for key, r in runs.items() if key[:3] == (name, *place)]
            if found:
                axes.bar(position + color * width, np.median(found), width, color=f"C{color}")
    labels = [f"{workers}, {condition}".replace(", one", ",\none") for workers, condition in places]
    axes.set_xticks(np.arange(len(places)) + 0.4 - width / 2, labels, fontsize=6, rotation=30, ha="right")
    lowest = min(record["env_steps_per_second"] for record in runs.values())
    axes.set(yscale="log", ylabel="env steps per second", title="measured, by workers and network")
    axes.set_ylim(bottom=lowest / 2)
    axes.grid(alpha=0.3, axis="y")


def _draw_model(axes: Any, setting: str, work: Work) -> None:
    """Draws the predicted speeds over the workers on a fast link, and dashed on a slow one."""
    fast, slow = LINKS_MODELLED[0], LINKS_MODELLED[-1]
    for color, name in enumerate(STRATEGIES):
        axes.plot(WORKERS_MODELLED, _speeds(name, work, fast, 1.0), f"C{color}", label=name)
        axes.plot(WORKERS_MODELLED, _speeds(name, work, slow, 1.0), f"C{color}--")
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="env steps per second")
    axes.set_title(f"model: {setting}\n{fast.name}; dashed: {slow.name}", fontsize=8)
    axes.legend(fontsize=6)
    axes.grid(alpha=0.3)
