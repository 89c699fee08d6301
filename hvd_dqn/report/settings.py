"""The last part of a page: settings, machine and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hvd_dqn.report.elements import NONE, facts, folded, swatch, table
from hvd_dqn.report.groups import RANKS, Group, changed, differences, flag, text_of


def settings(groups: Sequence[Group]) -> str:
    """Returns what differs from the preset or between the groups, and all settings folded."""
    names = {group.preset.name for group in groups}
    own = {name for group in groups for name in changed(group.runs[0], group.preset)}
    own |= set(differences([group.settings for group in groups]))
    shown = [name for name in groups[0].settings if name in own]
    base = groups[0].preset
    titles = [escape(group.name) if len(groups) == 1 else _title(i, group) for i, group in enumerate(groups)]
    rows = []
    for name in shown:
        preset = NONE if name == RANKS else escape(text_of(base.settings.get(name)))
        cells = [f"<code>{escape(text_of(group.settings.get(name)))}</code>" for group in groups]
        rows.append([f"<code>{flag(name)}</code>", *cells, *([preset] if len(names) == 1 else [])])
    head = ["Setting", *titles, *([f"Preset {escape(base.name)}"] if len(names) == 1 else [])]
    about = "What differs from the preset" + (" or between the groups" if len(groups) > 1 else "")
    differing = table(head, rows, about) if rows else f'<p class="note">As preset {escape(base.name)}.</p>'
    rest = [(f"<code>{flag(n)}</code>", escape(text_of(v))) for n, v in groups[0].settings.items() if n not in own]
    return differing + folded("All other settings", facts(rest, "columns"))


def machines(groups: Sequence[Group]) -> str:
    """Returns machine and versions of the runs, where they differ by run, and their commands."""
    runs = [run for group in groups for run in group.runs]
    known = [_known(run.about) for run in runs]
    differing = differences(known)
    common = [(escape(name), escape(value)) for name, value in known[0].items() if name not in differing]
    rows = [
        [escape(run.name), *(escape(own.get(n, "unknown")) for n in differing)]
        for run, own in zip(runs, known, strict=True)
    ]
    apart = table(["Run", *map(escape, differing)], rows, "What differs between the runs") if differing else ""
    commands = [[escape(run.name), f"<code>{escape(_command(run.about))}</code>"] for run in runs]
    listed = table(["Run", "Command of its latest job"], commands, "Commands", shown=False)
    return facts(common, "columns") + apart + folded("Commands", listed)


def _known(about: Mapping[str, Any]) -> dict[str, str]:
    """Returns machine, revision and versions of config.json."""
    found = {**about.get("machine", {}), "revision": about.get("git_revision", "unknown"), **about.get("versions", {})}
    return {str(name): str(value) for name, value in found.items()}


def _title(index: int, group: Group) -> str:
    return f'<span class="name">{swatch(index)}{escape(group.name)}</span>'


def _command(about: Mapping[str, Any]) -> str:
    words = about.get("command", [])
    return " ".join(map(str, words)) if isinstance(words, list) else ""
