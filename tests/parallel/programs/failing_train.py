"""Runs train.py with an error that no code expects on one rank, where it acts alone between two collectives.

    failing_train.py RANK CLASS ARGUMENTS...

CLASS is module:name; making one of its objects fails on that rank.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

from hostile_envs import own_rank


def main() -> None:
    """Runs on every rank."""
    rank, place, *arguments = sys.argv[1:]
    module, _, name = place.partition(":")
    made = getattr(importlib.import_module(module), name)
    initialise = made.__init__

    def fail(self: Any, *arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("a mistake in the code")

    if int(rank) == own_rank():
        made.__init__ = fail
    script = str(Path(__file__).resolve().parents[3] / "train.py")
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        made.__init__ = initialise


if __name__ == "__main__":
    main()
