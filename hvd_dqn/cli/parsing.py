"""Reads a command line into a dataclass, whose fields and docstrings are the flags and their help."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Any

from hvd_dqn.errors import UserError


def parse_dataclass(form: Any, arguments: Sequence[str], program: str, description: str, *, quiet: bool = False) -> Any:
    """Returns an instance of `form`, whose groups' names are no part of the flags.

    Args:
      form: a dataclass of groups of fields.
      arguments: the command line.
      program: its name, for messages.
      description: for --help.
      quiet: whether --help prints nothing.

    Raises:
      UserError: with tyro's message, for anything wrong.
      SystemExit: with code 0 or None after --help and --tyro-print-completion.
    """
    import tyro

    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message), contextlib.redirect_stdout(io.StringIO() if quiet else sys.stdout):
            return tyro.cli(
                form,
                prog=program,
                description=description,
                args=list(arguments),
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
            )
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise UserError(message.getvalue().rstrip()) from None
