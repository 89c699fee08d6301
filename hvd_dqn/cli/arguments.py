"""From the command line (over a config file, over a preset, over the defaults) to one configuration.

Nothing heavy is imported here: `train.py --help` must answer at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hvd_dqn.config import RESUME_AUTO, Config, PresetName, field_names, replace
from hvd_dqn.errors import UserError
from hvd_dqn.presets import PRESETS
from hvd_dqn.run.directory import RunDirectory, newest_checkpoint
from hvd_dqn.validation import validate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DESCRIPTION = (
    "Trains a Deep Q-Network on one or many ranks: python train.py, horovodrun -np 4 python train.py, or "
    "mpirun -np 4 python train.py. Every amount is global: the same values mean the same run at any number of ranks."
)


@dataclass(frozen=True)
class Sources:
    """Where the configuration comes from."""

    preset: PresetName | None = None
    """Named starting point for an environment; flags and the config file override it."""
    config: str | None = None
    """TOML file of flat `field = value` lines (or a run's config.json); flags override it."""


@dataclass(frozen=True)
class _CommandLine:
    sources: Sources
    config: Config


def parse(arguments: Sequence[str], read_run_config: Callable[[str], dict[str, Any]], *, quiet: bool) -> Config:
    """Returns the validated configuration that the arguments describe.

    Args:
      arguments: the command line without the program's name.
      read_run_config: returns the flat configuration of a run directory, for --resume.
      quiet: whether to print nothing (every rank but 0).

    Raises:
      UserError: for anything wrong with them.
      SystemExit: with code 0 after --help.
    """
    preset, file, resume = (_peek(arguments, name) for name in ("--preset", "--config", "--resume"))
    flat: dict[str, Any] = {}
    if preset is not None:
        flat |= _preset(preset)
    if file is not None:
        flat |= _checked_file(file)
    if resume == RESUME_AUTO:
        own = _parse_flags(arguments, replace(Config(), flat), quiet)
        directory, url = own_directory(own), own.job.checkpoint_path
        begun = newest_checkpoint(directory.checkpoints_at(url)) is not None
        resume = (url or str(directory.path)) if begun else None
    if resume is not None:
        flat = _checked(read_run_config(resume), f"{resume}/config.json") | flat
    config = _parse_flags(arguments, replace(Config(), flat), quiet)
    validate(config)
    return config


def own_directory(config: Config) -> RunDirectory:
    """Returns the run directory of a run that has a name.

    Raises:
      UserError: if it has none.
    """
    if not config.job.name:
        raise UserError("--resume auto goes on with the run of a --name, and none is given: add --name NAME")
    return RunDirectory.of(config.job.runs_dir, config.environment.env, config.job.name)


def _parse_flags(arguments: Sequence[str], defaults: Config, quiet: bool) -> Config:
    """Parses with tyro; its complaints become a UserError."""
    import tyro

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(io.StringIO() if quiet else sys.stdout):
            parsed = tyro.cli(
                _CommandLine,
                prog="train.py",
                description=DESCRIPTION,
                args=list(arguments),
                default=_CommandLine(Sources(), defaults),
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
            )
    except SystemExit as leaving:
        if leaving.code == 0:
            raise
        raise UserError(complaint.getvalue().rstrip()) from None
    return parsed.config


def _peek(arguments: Sequence[str], name: str) -> str | None:
    """Returns the value of a flag before the whole line is parsed: it decides the defaults of the others."""
    value = None
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith(name + "="):
            value = argument[len(name) + 1 :]
    return value


def _preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}{_nearest(name, PRESETS)}: choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def _checked_file(path: str) -> dict[str, Any]:
    """Reads a --config file: flat TOML, or the config.json of a run."""
    try:
        content = Path(path).read_bytes()
        flat = json.loads(content)["config"] if path.endswith(".json") else tomllib.loads(content.decode())
    except OSError as error:
        raise UserError(f"cannot read --config {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--config {path} is not a configuration ({error}): write lines such as seed = 1") from None
    preset = flat.pop("preset", None) if isinstance(flat, dict) else None
    base = _preset(str(preset)) if preset is not None else {}
    return base | _checked(flat, f"--config {path}")


def _checked(flat: Any, source: str) -> dict[str, Any]:
    """Checks names and types of flat values that come from a file."""
    if not isinstance(flat, dict):
        raise UserError(f"{source} holds no table of fields")
    known = field_names()
    hints = _field_types()
    checked = {}
    for name, value in flat.items():
        if name not in known:
            raise UserError(f"{source}: unknown key {name!r}{_nearest(name, known)}. `--help` lists all (as flags)")
        checked[name] = _convert(value, hints[name], f"{source}: {name}")
    return checked


def _field_types() -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for section in dataclasses.fields(Config()):
        hints |= get_type_hints(type(getattr(Config(), section.name)))
    return hints


def _convert(value: Any, wanted: Any, where: str) -> Any:
    """Returns a value read from a file in a field's type, or raises UserError."""
    if get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
        raise UserError(f"{where} is {value!r}{_nearest(str(value), get_args(wanted))}: one of {get_args(wanted)}")
    if get_origin(wanted) is tuple and isinstance(value, list) and all(type(v) is int for v in value):
        return tuple(value)
    if wanted is float and type(value) is int:
        return float(value)
    if isinstance(wanted, type) and type(value) is wanted:
        return value
    name = "a list of integers" if get_origin(wanted) is tuple else getattr(wanted, "__name__", str(wanted))
    raise UserError(f"{where} is {value!r}: it must be {name}")


def _nearest(name: str, known: Any) -> str:
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""
