"""The report: machine, versions, one table per case, the settings that were tried, the bars."""

from __future__ import annotations

import statistics
from typing import Any

from comparison.implementations import OURS

Row = list[str]


def describe_machine(record: dict[str, Any]) -> str:
    """Writes machine and versions."""
    machine = record["machine"]
    load = " ".join(f"{value:.2f}" for value in machine["load_average"])
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, load average at the start {load}",
        f"one thread, pinned to core {record['core']}; {record['seconds']:g} s per measurement, after "
        f"{record['warm_seconds']:g} s of learning; {record['repetitions']} repetitions in fresh processes, in turn",
    ]
    for side in ("ours", "peers"):
        words = [f"{name} {version}" for name, version in record["versions"][side].items()]
        lines.append(f"{side}: " + ", ".join(words))
    return "\n".join(lines)


def case_table(case: str, record: dict[str, Any]) -> str:
    """Writes the table of a case: fastest first, then what failed or does not apply, with the reason."""
    entries = record["cases"][case]
    ours = median(entries.get(OURS, {}))
    measured = sorted(
        (name for name in entries if median(entries[name])), key=lambda name: -(median(entries[name]) or 0)
    )
    rows: list[Row] = [["implementation", "setting", "env steps/s", "min to max", "n", "ours / it"]]
    for name in measured:
        speeds, middle = entries[name]["speeds"], median(entries[name]) or 1.0
        spread = f"{min(speeds):,.0f} to {max(speeds):,.0f}"
        ratio = f"{ours / middle:.2f}" if ours and name != OURS else ""
        rows.append([name, entries[name]["setting"], f"{middle:,.0f}", spread, str(len(speeds)), ratio])
    lines = [f"## {case}", "", *_markdown(rows)]
    rest = [name for name in entries if name not in measured]
    lines += [""] * bool(rest) + [f"- {name}: {entries[name]['reason']}" for name in rest]
    troubled = [(name, reason) for name in measured for reason in entries[name]["failures"]]
    return "\n".join(lines + [f"- {name}, one repetition: {reason}" for name, reason in troubled])


def scan_table(case: str, record: dict[str, Any]) -> str:
    """Writes every setting that was tried once to choose the one for the table."""
    rows: list[Row] = [["implementation", "setting", "env steps/s"]]
    for entry in record["scan"][case]:
        speed = entry["env_steps_per_second"]
        rows.append([entry["implementation"], entry["setting"], f"{speed:,.0f}" if speed else entry["reason"]])
    return "\n".join([f"## {case}: settings tried (once, short)", "", *_markdown(rows)])


def bars_table(verdicts: list[dict[str, Any]]) -> str:
    """Writes the verdicts."""
    rows: list[Row] = [["case", "against", "asked", "reached", ""]]
    for entry in verdicts:
        reached = "-" if entry["reached"] is None else f"{entry['reached']:.2f}"
        rows.append([entry["case"], entry["rival"], f"{entry['asked']:g}", reached, entry["verdict"]])
    return "\n".join(["## Bars", "", *_markdown(rows)])


def median(entry: dict[str, Any]) -> float | None:
    """Returns the median speed of an entry, or None."""
    return statistics.median(entry["speeds"]) if entry.get("speeds") else None


def _markdown(rows: list[Row]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
