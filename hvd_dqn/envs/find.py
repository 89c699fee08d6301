"""Finds what --env names: an id, and the module, the file or the class that it comes from."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym

from hvd_dqn.envs.foreign import brief, where
from hvd_dqn.errors import UserError, did_you_mean

_EXTRAS = {
    "ale_py": " (Atari needs the extra [atari]: pip install 'hvd-dqn[atari]')",
    "hvd_dqn.envs.minatar": " (MinAtar needs the extra [minatar]: make setup EXTRAS='atari minatar', or "
    "pip install 'hvd-dqn[minatar]')",
}
"""What is missing where the module of known ids cannot be imported."""


def find_spec(env_id: str) -> gym.envs.registration.EnvSpec:
    """Returns the registered environment of `Id`, `module:Id`, `module:Class`, `file.py:Id` or `file.py:Class`.

    A module is looked for in the working folder, too.

    Raises:
      UserError: if there is none, with the nearest match.
    """
    place, _, name = env_id.rpartition(":")
    if not place and name.startswith("ALE/"):
        place = "ale_py"
    if not place and name.startswith("MinAtar/"):
        place = "hvd_dqn.envs.minatar"
    module = import_place(place, f"--env {env_id!r}", "Id") if place else None
    cls = getattr(module, name, None)
    if module is not None and name not in gym.registry and isinstance(cls, type) and issubclass(cls, gym.Env):
        name = f"{module.__name__.replace('.', '-')}/{name}"  # no clash with an id that the module registers
        if name not in gym.registry:
            gym.register(name, entry_point=cls)
    try:
        return gym.spec(name)
    except gym.error.Error as error:
        raise UserError(f"no environment {env_id!r}: {error}{_remedy(name, module)}") from None


def import_place(place: str, asked: str, name: str) -> ModuleType:
    """Imports a module, or a file whose name ends in .py.

    Args:
      place: the module's name or the file's path. A module is looked for in the working folder, too.
      asked: the flag and its value, for messages.
      name: what is looked for in it, for messages.

    Raises:
      UserError: whatever goes wrong.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return _import_file(Path(place).absolute()) if place.endswith(".py") else importlib.import_module(place)
    except BaseException as error:  # a script may even exit
        what = f"cannot import the module of {asked}: {brief(error)}"
        if place in _EXTRAS:
            raise UserError(what + _EXTRAS[place]) from None
        if isinstance(error, FileNotFoundError) or (isinstance(error, ModuleNotFoundError) and error.name == place):
            raise UserError(
                f"{what} (give its file's path, ./{place.removesuffix('.py')}.py:{name}, or install it, or "
                "put its folder on PYTHONPATH)"
            ) from None
        raise UserError(f"{what}{where(error)}") from None


def _import_file(path: Path) -> ModuleType:
    """Imports a file under its name, with the modules next to it; once in a process."""
    for name in (path.stem, f"_file_{path.stem}"):  # the second where another module has its name
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) == str(path):
            return known
        if known is None:
            break
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _remedy(name: str, module: ModuleType | None) -> str:
    """Returns what might have been meant."""
    if module is not None:
        own = [key for key, spec in gym.registry.items() if _comes_from(spec, module.__name__)]
        own += [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, gym.Env)]
        known = f"it has {', '.join(sorted(own)[:20])}" if own else "it registers none"
        return f" (the module {module.__name__} was imported; {known}{did_you_mean(name, own)})"
    if name.partition("-")[0].endswith(("NoFrameskip", "Deterministic")):
        game = name.partition("NoFrameskip")[0].partition("Deterministic")[0]
        return f" (Atari's games are ALE/{game}-v5, or as here ale_py:{name})"
    listing = " (all are listed by: python -c 'import gymnasium; gymnasium.pprint_registry()')"
    return did_you_mean(name, gym.registry) + listing


def _comes_from(spec: Any, module: str) -> bool:
    point = spec.entry_point
    name = point if isinstance(point, str) else getattr(point, "__module__", "")
    return name.partition(":")[0].split(".")[0] == module.split(".", maxsplit=1)[0]
