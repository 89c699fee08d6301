"""Whole short runs of train.py, and verbs, in this process: a fifth of a second each, once TensorFlow is loaded."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

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


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the files below a folder, links not followed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
