"""The command line's flags: their groups in --help, and the page docs/reference/flags.md.

    python -m hvd_dqn.cli.flags > docs/reference/flags.md

Names, types, defaults and help texts are those of the configuration's fields. NumPy and TensorFlow are not imported
here, so that --help answers at once.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import sys
from typing import Annotated, Any, Literal, get_args, get_origin

from hvd_dqn import config as configuration
from hvd_dqn.config import Config, field_types, flatten
from hvd_dqn.presets import PRESETS
from hvd_dqn.run.terminal import keep_standard_streams

COMMON = ("env", "total_env_steps", "seed", "name", "resume", "num_envs", "learning_rate")
"""The fields of the first group, after --preset and --config."""
_METAVARS = {
    "preset": "NAME",
    "config": "FILE",
    "env": "ID",
    "env_kwargs": "JSON",
    "name": "NAME",
    "resume": "DIR|URL|auto",
    "runs_dir": "DIR",
    "checkpoint_path": "URL",
    "time_limit": "TIME",
}


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag."""

    name: str
    """The field's name."""
    type: Any
    default: Any
    help: str

    @property
    def metavar(self) -> str | None:
        """Returns the placeholder of the value in the help text, or None for that of the type."""
        return _METAVARS.get(self.name)

    @property
    def spelling(self) -> str:
        """Returns the flag as it is written on the command line."""
        return "--" + self.name.replace("_", "-")


def groups(defaults: Config) -> dict[str, list[Flag]]:
    """Returns all flags by the titles of their groups, the most important group first.

    Args:
      defaults: the configuration whose values are the flags' defaults.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in flatten(defaults).items()}
    helps, hints = _help_texts(), field_types()
    flags = {name: Flag(name, hints[name], values[name], helps[name]) for name in values}
    grouped = {"common": [*_sources(), *(flags[name] for name in COMMON)]}
    for section in dataclasses.fields(defaults):
        names = [field.name for field in dataclasses.fields(getattr(defaults, section.name))]
        title = "run directory" if section.name == "job" else section.name
        grouped[title] = [flags[name] for name in names if name not in COMMON]
    return grouped


def form(defaults: Config) -> type:
    """Returns a dataclass from which tyro makes the command line: one nested dataclass per group."""
    import tyro

    nested = []
    for title, flags in groups(defaults).items():
        fields = [(flag.name, _annotated(flag), dataclasses.field(default=flag.default)) for flag in flags]
        group = dataclasses.make_dataclass(title.title().replace(" ", ""), fields, frozen=True)
        group.__doc__ = ""
        about = tyro.conf.arg(name=title)
        nested.append((title.replace(" ", "_"), Annotated[group, about], dataclasses.field(default_factory=group)))
    return dataclasses.make_dataclass("CommandLine", nested, frozen=True)


def _annotated(flag: Flag) -> Any:
    """Returns a flag's type with what tyro shows of it."""
    import tyro

    hint = "" if flag.default == "" or flag.name == "version" else None
    about: tuple[Any, ...] = (tyro.conf.arg(help=flag.help, metavar=flag.metavar, help_behavior_hint=hint),)
    if flag.name == "version":
        about = (*about, tyro.conf.FlagCreatePairsOff)
    if flag.type is int:
        numbers = tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda texts: whole_number(texts[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )
        about = (*about, numbers)
    return Annotated[(flag.type, *about)]


def whole_number(text: str) -> int:
    """Reads 1000000, 1_000_000 or 1e6.

    Raises:
      ValueError: if it is no whole number.
    """
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(f"{text} is no whole number") from None
        return int(number)


def page() -> str:
    """Returns the text of docs/reference/flags.md."""
    lines = [
        "# Flags",
        "",
        "All flags of `train.py`, in the order of `--help`. Each is also a key of a `--config` file and of",
        "`config.json`, with underscores instead of hyphens. Amounts are global: they are summed over all ranks, and",
        "each rank takes its share.",
        "",
        "This page is generated: `python -m hvd_dqn.cli.flags > docs/reference/flags.md`.",
    ]
    for title, flags in groups(Config()).items():
        lines += ["", f"## {title.capitalize()}", "", "| flag | values | default | meaning |", "|---|---|---|---|"]
        for flag in flags:
            default = "" if flag.default == "" or flag.name == "version" else f"`{_text(flag.default)}`"
            meaning = flag.help.replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{flag.spelling}` | {_values(flag)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _sources() -> list[Flag]:
    """Returns the flags that are not fields of the configuration."""
    names = ", ".join(PRESETS)
    presets = f"Settings of an algorithm or for an environment: {names}. The config file and other flags override them."
    file = "TOML file of `field = value` lines, or the config.json of a run to repeat. Other flags override it."
    return [
        Flag("preset", str, "", presets),
        Flag("config", str, "", file),
        Flag("version", bool, False, "Print the version and exit."),
    ]


def _help_texts() -> dict[str, str]:
    """Returns the docstring of each field, on one line."""
    found = {}
    for section in ast.parse(inspect.getsource(configuration)).body:
        for field, after in itertools.pairwise(section.body if isinstance(section, ast.ClassDef) else []):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                found[ast.unparse(field.target)] = " ".join(ast.literal_eval(after.value).split())
    return found


def _values(flag: Flag) -> str:
    if get_origin(flag.type) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(flag.type))
    if get_origin(flag.type) is tuple:
        return "integers"
    names = {int: "integer", float: "number", bool: "on or off (`--no-…`)", str: "text"}
    return "" if flag.name == "version" else flag.metavar.replace("|", ", ") if flag.metavar else names[flag.type]


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    keep_standard_streams()
    sys.stdout.write(page())
