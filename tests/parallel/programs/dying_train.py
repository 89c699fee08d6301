"""Runs train.py; one rank kills itself at the first call of a method.

dying_train.py RANK MODULE:CLASS.METHOD ARGUMENTS...
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from hostile_envs import own_rank


def die(*_: Any, **__: Any) -> None:
    """Ends this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Runs on every rank."""
    rank, where, *arguments = sys.argv[1:]
    if int(rank) == own_rank():
        module, _, names = where.partition(":")
        owner, _, method = names.partition(".")
        setattr(getattr(importlib.import_module(module), owner), method, die)
    script = str(Path(__file__).resolve().parents[3] / "train.py")
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
