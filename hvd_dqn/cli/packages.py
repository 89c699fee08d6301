"""Reports packages that the running Python lacks, with the remedy. Imports the standard library only."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

REQUIRED = (
    *("tensorflow", "horovod", "mpi4py", "numpy", "gymnasium", "safetensors", "zstandard"),
    *("tyro", "rich", "tensorboard", "psutil"),
)
"""The packages without which no job runs, by the names under which they are imported."""
_EXIT_USER_ERROR = 2  # of hvd_dqn.errors, which this module does not need otherwise


def require_packages(program: Path) -> None:
    """Ends the process with exit code 2 and the remedy if a package is missing.

    Args:
      program: train.py, next to which a checkout has its .venv.
    """
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"train.py: this Python ({sys.executable}) has no {missing[0]}: {_remedy(program)}", file=sys.stderr)
        sys.exit(_EXIT_USER_ERROR)


def _remedy(program: Path) -> str:
    root = program.resolve().parent
    environment = root / ".venv"
    if not (root / "Makefile").exists():
        return "install the package hvd-dqn with its dependencies into it"
    if not (environment / "bin" / "python").exists() or Path(sys.executable).parent.resolve() == environment / "bin":
        return f"complete the project's environment: make -C {root} setup"
    return f"activate the project's environment: source {environment}/bin/activate (or run {environment}/bin/python)"
