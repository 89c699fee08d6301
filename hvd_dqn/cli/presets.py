"""hvd-dqn presets: lists the presets, or writes one as a configuration file."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from hvd_dqn.cli.arguments import preset_settings
from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.config import Config, flatten, replace
from hvd_dqn.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from hvd_dqn.presets import ABOUT, PRESETS, preset_for

PROGRAM = "hvd-dqn presets"
DESCRIPTION = """Lists the presets, or writes one as a configuration file.

  hvd-dqn presets                              a table of all
  hvd-dqn presets lunarlander                  where its values come from, and what differs from the defaults
  hvd-dqn presets lunarlander > own.toml       edit it, then: hvd-dqn train --config own.toml
  hvd-dqn presets --json"""
_COLUMNS = ("preset", "task", "algorithm", "env steps", "mean return measured", "source")
_WIDTH = 100


@dataclass(frozen=True)
class Asked:
    """What is asked for."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ""
    """One preset. Empty: a table of all."""
    json: bool = False
    """Print JSON: the settings that differ from the defaults, the source, its deviations and what was measured."""


def main(arguments: Sequence[str]) -> int:
    """Prints the presets and returns the exit code."""
    try:
        asked = parse_dataclass(Asked, arguments, PROGRAM, DESCRIPTION)
        names = [asked.name] if asked.name else list(PRESETS)
        described = [_described(name) for name in names]
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    if asked.json:
        print(json.dumps(described[0] if asked.name else described, indent=2))
    else:
        print(as_toml(asked.name) if asked.name else _table(names))
    return EXIT_DONE


def settings(name: str) -> dict[str, Any]:
    """Returns a preset's flat fields where they differ from what its environment has without a preset.

    Raises:
      UserError: if there is no such preset.
    """
    default, full = flatten(Config()), flatten(replace(Config(), preset_settings(name)))
    of_environment = PRESETS.get(preset_for(full["env"]) or "", {})
    return {field: value for field, value in full.items() if value != default[field] or field in of_environment}


def as_toml(name: str) -> str:
    """Returns a preset as a --config file, with comments.

    Raises:
      UserError: if there is no such preset.
    """
    own, default, about = settings(name), flatten(Config()), ABOUT[name]
    comments = [f"The preset {name}. Amounts are summed over all ranks.", f"Source: {about.source}."]
    comments += [f"Deviations: {about.deviations}."] if about.deviations else []
    comments += [f"Measured: mean return {about.measured}."] if about.measured else []
    lines = [
        line for text in comments for line in textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="#   ")
    ]
    for field, value in own.items():
        note = "the default" if value == default[field] else f"default: {_toml(default[field])}"
        lines.append(f"{field} = {_toml(value)}  # {note}")
    return "\n".join(lines if own else [*lines, "# It is the defaults."])


def _toml(value: Any) -> str:
    """Returns a value in TOML, whose strings, numbers, switches and lists of numbers are those of JSON."""
    return json.dumps(value)


def _described(name: str) -> dict[str, Any]:
    own = settings(name)
    return {"name": name, **ABOUT[name]._asdict(), "settings": own}


def _table(names: Sequence[str]) -> str:
    """Returns one line per preset."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for name in names:
        full = flatten(replace(Config(), PRESETS[name]))
        steps = f"{full['total_env_steps']:,}"
        source = ABOUT[name].source.partition(", http")[0].partition(" (Castro")[0]
        rows.append((name, full["env"], full["algorithm"], steps, ABOUT[name].measured or "-", source))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", "`hvd-dqn presets NAME` shows one; `hvd-dqn train --preset NAME` trains with it."])
