"""The console command hvd-dqn: runs train.py, in a checkout as well as from an installed wheel."""

from __future__ import annotations

import runpy
from pathlib import Path


def program() -> Path:
    """Returns the path of train.py: inside the package in a wheel, next to the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(path for path in (package / "train.py", package.parent / "train.py") if path.is_file())


def main() -> None:
    """Does exactly what `python train.py` does; ends the process with the job's exit code."""
    runpy.run_path(str(program()), run_name="__main__")
