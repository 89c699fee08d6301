"""Writes a trained agent's network into a folder: the model, and a model.json that says what it is."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hvd_dqn.checkpoint.files import write_json
from hvd_dqn.distributed.runtime import quiet_stderr
from hvd_dqn.errors import UserError
from hvd_dqn.export.check import check
from hvd_dqn.export.formats import FORMATS, code
from hvd_dqn.export.stock import foreign_layers, stock_model
from hvd_dqn.files import write_file
from hvd_dqn.locations import is_url
from hvd_dqn.training.trained import Trained
from hvd_dqn.version import __version__

ABOUT_FILE = "model.json"
_SUFFIXES = (".keras", ".onnx", ".safetensors", ".py", ".json")
SERVER = "serve.py"
"""A program next to this module that serves an export in the format onnx."""


class Written(NamedTuple):
    """An export."""

    folder: Path
    about: dict[str, Any]
    """What model.json holds."""
    checked: str
    """How well it agrees with the trained agent."""


def export(trained: Trained, place: str, name: str, output: str, *, force: bool, serve: bool = False) -> Written:
    """Writes the network, reads it again with its own runtime and compares the two.

    Args:
      trained: the agent.
      place: the run that it is from.
      name: of the format.
      output: the folder to write; "" for one in the run directory.
      force: whether to replace an export that is there.
      serve: whether to write the program that serves it, too.

    Raises:
      UserError: if the folder is not to be written, or this format cannot hold this network.
      RankFailure: if what was written computes something else.
    """
    chosen = FORMATS[name]
    folder = _folder(place, output, f"{'serve' if serve else name}-{trained.env_steps:012d}")
    _refuse_other(folder, force)
    model = stock_model(trained)
    own = [] if chosen.traced else foreign_layers(model)
    if own:
        raise UserError(
            f"--format {name}: the layer {own[0]!r} is code of your own, which such a file does not hold: "
            "give --format saved-model or onnx"
        )
    about = describe(trained, name)
    with _replaced(folder) as temporary:
        with quiet_stderr():
            chosen.write(model, temporary / chosen.file)
        checked = check(chosen.load(temporary / chosen.file), trained)
        write_json(temporary / ABOUT_FILE, about)
        for program in (*chosen.programs, *([SERVER] if serve else [])):
            write_file(temporary / program, Path(__file__).with_name(program).read_bytes())
    return Written(folder, about, str(checked))


def describe(trained: Trained, name: str) -> dict[str, Any]:
    """Returns what an export is, for a reader who has nothing else of the run."""
    config, spaces = trained.config, trained.spaces
    observation = {"shape": list(spaces.network_shape), "dtype": str(spaces.observation_dtype)}
    return {
        "env": config.environment.env,
        "env_kwargs": json.loads(config.environment.env_kwargs),
        "protocol": config.environment.protocol,
        "actions": list(spaces.joint_bins) or spaces.num_actions,
        "observation": observation | ({"categories": spaces.num_categories} if spaces.num_categories else {}),
        "action_mask": spaces.masked,
        "algorithm": config.algorithm.algorithm,
        "network": trained.network_name,
        "env_steps": trained.env_steps,
        "score": trained.score,
        "format": name,
        "file": FORMATS[name].file,
        "hvd_dqn": __version__,
    } | ({"action_bins": config.environment.action_bins} if config.environment.action_bins else {})


def report(written: Written) -> str:
    """Returns what was written, what was checked, and how a program loads it."""
    about = written.about
    shape = ", ".join(map(str, ("N", *about["observation"]["shape"])))
    actions = about["actions"]
    values, greedy = f"[N, {actions}]", "the greedy action is the largest one's"
    if isinstance(actions, list):
        values, greedy = f"[N, {len(actions)}, {max(actions)}]", "each joint's greedy bin is the largest one's"
    mask = f", action_mask: int8 [N, {about['actions']}]" if about["action_mask"] else ""
    lines = [
        *_heading(written),
        "load it, in that folder:",
        *(f"  {line}" for line in code(about["format"], about["action_mask"])),
        f"observation: {about['observation']['dtype']} [{shape}]{mask}; action_values: float32 {values}, {greedy}",
    ]
    return "\n".join(lines)


def report_server(written: Written) -> str:
    """Returns what was written, how to start the program that serves it, and how to ask it for an action."""
    about = written.about
    zeros = f"np.zeros({tuple(about['observation']['shape'])}, '{about['observation']['dtype']}').tolist()"
    mask = f", 'action_mask': [1] * {about['actions']}" if about["action_mask"] else ""
    request = f"import json, numpy as np; print(json.dumps({{'observation': {zeros}{mask}}}))"
    lines = [
        *_heading(written),
        "start it (it needs fastapi, uvicorn, onnxruntime and numpy, and nothing of this package):",
        f"  uvicorn --app-dir {shlex.quote(str(written.folder))} serve:app --port 8000",
        "ask it for an action:",
        f'  python -c "{request}" |',
        "    curl -s localhost:8000/act -H 'content-type: application/json' -d @-",
    ]
    return "\n".join(lines)


def _heading(written: Written) -> list[str]:
    files = ", ".join(sorted(path.name for path in written.folder.iterdir()))
    return [f"wrote {written.folder}: {files}", f"checked: {written.checked}"]


def _folder(place: str, output: str, name: str) -> Path:
    """Returns the folder to write.

    Raises:
      UserError: if it has to be named, or what is named is a file.
    """
    if not output and is_url(place):
        raise UserError(f"{place} is not a folder of this machine: give the folder to write with --output")
    if Path(output).suffix in _SUFFIXES:
        raise UserError(
            f"--output {output} looks like a file, and an export is a folder with a model and {ABOUT_FILE}: "
            f"give --output {Path(output).with_suffix('')}"
        )
    return Path(os.path.realpath(output)) if output else Path(os.path.realpath(place)) / "export" / name


def _refuse_other(folder: Path, force: bool) -> None:
    """Checks that the folder is free, or an export that is to be replaced.

    Raises:
      UserError: if it is not.
    """
    if not os.path.lexists(folder):
        return
    if not force:
        raise UserError(f"{folder} exists already: add --force to replace it, or give another folder with --output")
    if not (folder / ABOUT_FILE).is_file():
        raise UserError(f"{folder} is no export (it has no {ABOUT_FILE}), and --force replaces no other folder")


@contextlib.contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the place of `folder` at the end, unless an exception is raised.

    Raises:
      UserError: if it cannot be written.
    """
    temporary, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}. Give another folder with --output"
        ) from None
    finally:
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)
