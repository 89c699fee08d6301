"""Draws the equity curves of the tests, and how agents compare with the known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verdict import HOLD, Verdict

_AGENT, _OTHERS = "#0072b2", {HOLD: "#d55e00", "cash": "#7f7f7f"}
_CROSSING = "#009e73"
TITLES = {"forex": "EUR/USD by the hour, 2017", "stocks": "Alphabet by the day, 2014 to 2018"}


def draw(known: list[dict[str, Any]], verdicts: dict[str, Verdict], path: Path) -> None:
    """Writes a PNG file: known answers at the left, then one panel for each price file.

    Args:
      known: lines of results.jsonl on generated series.
      verdicts: by price file.
      path: of the file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = 1 + len(verdicts)
    figure, ((*axes,),) = plt.subplots(1, panels, figsize=(5.2 * panels, 4.2), layout="constrained", squeeze=False)
    _draw_known(axes[0], known)
    for ax, (name, verdict) in zip(axes[1:], verdicts.items(), strict=True):
        for own, curve in verdict.curves.items():
            if own.startswith("seed"):
                label = "agent, one line per seed" if own == "seed 0" else None
                ax.plot(verdict.times, curve, color=_AGENT, alpha=0.55, linewidth=0.9, label=label)
            else:
                ax.plot(verdict.times, curve, color=_OTHERS.get(own, _CROSSING), linewidth=1.4, label=own)
        low, high = verdict.interval
        ax.set_title(
            f"{TITLES[name]}\nSharpe ratio of the median seed: 95 % from {low:+.1f} to {high:+.1f}", fontsize=10
        )
        ax.set_ylabel("cumulative log return after costs [%]")
        ax.tick_params(axis="x", rotation=30)
        ax.legend(fontsize=8, frameon=False)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_known(ax: Any, known: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(line["case"] for line in known))
    for place, name in enumerate(names):
        lines = [line for line in known if line["case"] == name]
        ax.plot(
            [place - 0.3, place + 0.3], [lines[0]["optimal"]] * 2, color="black", label="optimum" if not place else None
        )
        for number, line in enumerate(lines):
            x, (low, high) = place + 0.12 * (number - (len(lines) - 1) / 2), line["interval"]
            ax.errorbar(
                x, line["earned"], [[line["earned"] - low], [high - line["earned"]]], fmt="o", color=_AGENT, ms=4
            )
    ax.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names], fontsize=8)
    ax.set_ylabel("log return of an episode after costs [%]")
    ax.set_title("Generated series: each seed and the optimum\n95 % intervals over 1,000 episodes", fontsize=10)
    ax.legend(fontsize=8, frameon=False)
