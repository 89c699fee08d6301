"""Parses the command line to one configuration: flags override a config file, then a preset, then the defaults.

NumPy and TensorFlow are not imported here, so that `train.py --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, get_origin

from hvd_dqn.checkpoint.listing import newest_checkpoint
from hvd_dqn.cli.flags import form
from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.config import RESUME_AUTO, Config, field_names, field_types, replace
from hvd_dqn.errors import UserError, did_you_mean
from hvd_dqn.files import CONFIG_BYTES, parse_json
from hvd_dqn.presets import PRESETS, PROTOCOLS, preset_for
from hvd_dqn.run.directory import RunDirectory
from hvd_dqn.validation import validate
from hvd_dqn.version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DESCRIPTION = """Trains a Deep Q-Network on one or many ranks.

  python train.py                                          CartPole on one rank
  horovodrun -np 4 python train.py --preset lunarlander    four ranks on this machine
  mpirun -np 4 python train.py --seed 1 --name first       the same with MPI's launcher
  python train.py --resume runs/CartPole-v1/first          resume a run from its newest checkpoint
  hvd-dqn train --seeds 0-4 --name first                   five runs, one after the other

All amounts are global: the same flags give the same learning curve on any number of ranks."""
_OF_SOME_ALGORITHMS = {"double", "learner"}


def parse(arguments: Sequence[str], read_run_config: Callable[[str], dict[str, Any]], *, quiet: bool) -> Config:
    """Returns the validated configuration that the arguments describe.

    Args:
      arguments: the command line without the program's name.
      read_run_config: returns the flat configuration of a run directory, for --resume.
      quiet: True to print nothing (all ranks except 0).

    Raises:
      UserError: if an argument or a file is invalid.
      SystemExit: with code 0 after --help and --version.
    """
    if "--version" in arguments:
        if not quiet:
            print(f"hvd-dqn {__version__}")
        raise SystemExit(0)
    preset, file, resume = (_peek(arguments, name) for name in ("--preset", "--config", "--resume"))
    from_file = {} if file is None else _checked_file(file)
    base = {} if preset is None else preset_settings(preset)
    protocol = _peek(arguments, "--protocol") or from_file.get("protocol")
    flat = base | PROTOCOLS.get(protocol or "", {}) | from_file
    if resume == RESUME_AUTO:
        own = _parse_flags(arguments, replace(Config(), flat), quiet)
        directory, url = own_directory(own), own.job.checkpoint_path
        begun = newest_checkpoint(directory.checkpoints_at(url)) is not None
        resume = (url or str(directory.path)) if begun else None
    if resume is not None:
        resume = os.path.expanduser(resume)
        flat = _checked(read_run_config(resume), f"{resume}/config.json") | flat
    elif preset is None:
        env = _peek(arguments, "--env") or flat.get("env", Config().environment.env)
        names = {word.partition("=")[0][2:].replace("-", "_") for word in arguments if word.startswith("--")}
        flat = _settings_for(env, flat, names, quiet or not {"-h", "--help"}.isdisjoint(arguments)) | flat
    config = _parse_flags(arguments, replace(Config(), flat), quiet)
    if resume is None and _peek(arguments, "--learning-starts") is None and "learning_starts" not in from_file:
        config = _learning_in_time(config)
    validate(config)
    return config


def _settings_for(env: str, given: dict[str, Any], flags: set[str], quiet: bool) -> dict[str, Any]:
    """Returns the settings that an environment needs in place of the defaults, and says which preset they are.

    A flag that only some algorithms have brings the default algorithm, with the preset's other settings.
    """
    name = preset_for(env)
    if name is None:
        return {}
    settings = dict(PRESETS[name])
    if not _OF_SOME_ALGORITHMS.isdisjoint(given.keys() | flags):
        settings.pop("algorithm", None)
    if not quiet and not settings.keys() <= given.keys():
        note = f"train.py: {env} takes the settings of --preset {name}; other flags override them"
        print(note, file=sys.stderr, flush=True)
    return settings


def _learning_in_time(config: Config) -> Config:
    """Lets a run that is shorter than the default start of learning learn in its second half."""
    total, starts = config.job.total_env_steps, config.replay.learning_starts
    return replace(config, {"learning_starts": max(1, total // 2)}) if starts >= total else config


def own_directory(config: Config) -> RunDirectory:
    """Returns the run directory of a named run.

    Raises:
      UserError: if no --name is given.
    """
    if not config.job.name:
        raise UserError("--resume auto resumes the run of a --name, and none is given: add --name NAME")
    return RunDirectory.of(config.job.runs_dir, config.environment.env, config.job.name)


def _parse_flags(arguments: Sequence[str], defaults: Config, quiet: bool) -> Config:
    """Parses the flags over these defaults."""
    parsed = parse_dataclass(form(defaults), arguments, "train.py", DESCRIPTION, quiet=quiet)
    flat = {name: value for group in vars(parsed).values() for name, value in vars(group).items()}
    # A shell expands ~ in `--runs-dir ~/runs`, and not in `--runs-dir=~/runs`.
    return replace(Config(), flat | {name: os.path.expanduser(flat[name]) for name in ("runs_dir", "resume")})


def _peek(arguments: Sequence[str], name: str) -> str | None:
    """Returns the value of a flag that determines the defaults of others, before the whole line is parsed."""
    value = None
    for position, argument in enumerate(arguments):
        given, equals, text = argument.partition("=")
        if given.replace("_", "-") == name:
            value = text if equals else next(iter(arguments[position + 1 :]), None)
    return value


def preset_settings(name: str) -> dict[str, Any]:
    """Returns the flat configuration fields of a preset.

    Raises:
      UserError: if there is none of this name.
    """
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}{did_you_mean(name, PRESETS)}: choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def _checked_file(path: str) -> dict[str, Any]:
    """Reads a --config file: flat TOML, or the config.json of a run."""
    try:
        with open(path, "rb") as file:
            content = file.read(CONFIG_BYTES + 1)
        if len(content) > CONFIG_BYTES:
            raise ValueError(f"it has more than {CONFIG_BYTES:,} bytes")
        flat = parse_json(content)["config"] if path.endswith(".json") else tomllib.loads(content.decode())
    except OSError as error:
        raise UserError(f"cannot read --config {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"--config {path} is not a configuration ({error}): write lines such as seed = 1") from None
    preset = flat.pop("preset", None) if isinstance(flat, dict) else None
    base = preset_settings(str(preset)) if preset is not None else {}
    return base | _checked(flat, f"--config {path}")


def _checked(flat: Any, source: str) -> dict[str, Any]:
    """Checks names and types of the values from a file."""
    if not isinstance(flat, dict):
        raise UserError(f"{source} is not a table of fields")
    known = field_names()
    hints = field_types()
    checked = {}
    for name, value in flat.items():
        if name not in known:
            raise UserError(f"{source}: unknown key {name!r}{did_you_mean(name, known)}. `--help` lists all (as flags)")
        checked[name] = _convert(value, hints[name], f"{source}: {name}")
    return checked


def _convert(value: Any, wanted: Any, where: str) -> Any:
    """Converts a value from a file to the type of its field, or raises UserError."""
    if get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
        raise UserError(f"{where} is {value!r}{did_you_mean(str(value), get_args(wanted))}: one of {get_args(wanted)}")
    if get_origin(wanted) is tuple and isinstance(value, list) and all(type(v) is int for v in value):
        return tuple(value)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is int and type(value) is float and value.is_integer():
        return int(value)
    if isinstance(wanted, type) and type(value) is wanted:
        return value
    name = "a list of integers" if get_origin(wanted) is tuple else getattr(wanted, "__name__", str(wanted))
    raise UserError(f"{where} is {value!r}: it must be {name}")
