"""Whole short runs of train.py, and verbs, in this process: a fifth of a second each, once TensorFlow is loaded."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import pytest
from hostile_envs import Walk

import train
from hvd_dqn.distributed.communicator import SingleCommunicator

QUICK = (
    *("--learning-starts", "20", "--num-envs", "2", "--global-batch-size", "8", "--hidden-sizes", "4"),
    *("--evaluation-period", "0", "--final-evaluation-episodes", "1", "--checkpoint-period", "50"),
    *("--log-period", "50", "--progress", "plain", "--preset", "dqn"),
)


class Ended(NamedTuple):
    """How a run ended."""

    code: int
    printed: str
    """To both streams, in the order of time."""
    stdout: str


def run(*arguments: str | Path) -> Ended:
    """Runs train.py with these arguments; an exception that it does not expect is raised here."""
    return run_main(train.main, train.__file__, *arguments)


def run_main(main: Callable[[list[str]], int], program: str, *arguments: object) -> Ended:
    """Runs a program's main with these arguments; an exception that it does not expect is raised here.

    Args:
      main: takes the arguments and returns the exit code.
      program: the first word of the command.
      *arguments: the other words.
    """
    given, printed, stdout = [*map(str, arguments)], io.StringIO(), _Copied()
    stdout.copy = printed

    def abort(self: Any, code: int) -> None:
        pytest.fail(f"exit code {code}:\n{printed.getvalue()}")

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(printed),
        contextlib.redirect_stdout(stdout),
    ):
        patch.setattr(sys, "argv", [program, *given])
        patch.setattr(SingleCommunicator, "abort", abort)
        code = main(given)
    return Ended(code, printed.getvalue(), stdout.getvalue())


class _Copied(io.StringIO):
    """Keeps what is written, and writes it elsewhere, too."""

    copy: io.StringIO

    def write(self, text: str) -> int:
        self.copy.write(text)
        return super().write(text)


class Planned(Walk):
    """A walk during which something happens; its steps are counted over all environments of the process."""

    happens: ClassVar[Callable[[int], object]]
    """Called with the number of each step before it is made, and with 0 where an environment is made."""
    steps: ClassVar[int]

    def __init__(self, length: int = 20) -> None:
        super().__init__(length)
        Planned.happens(0)

    def step(self, action: np.int64) -> Any:
        Planned.steps += 1
        Planned.happens(Planned.steps)
        return super().step(action)


def run_odd(env: type[Walk], folder: Path, *more: str, total: int = 60) -> Ended:
    """Runs train.py with an environment, in folder/Odd-v0/a."""
    gymnasium.registry.pop("Odd-v0", None)
    gymnasium.register("Odd-v0", entry_point=env)
    place = ("--env", "Odd-v0", "--runs-dir", folder, "--name", "a")
    return run(*QUICK, *place, "--total-env-steps", str(total), *more)


def run_planned(happens: Callable[[int], object], folder: Path, *more: str, total: int = 60) -> Ended:
    """Runs train.py with `Planned`."""
    Planned.happens, Planned.steps = happens, 0
    return run_odd(Planned, folder, *more, total=total)


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the files below a folder, links not followed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
