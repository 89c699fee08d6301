"""Writes what a launcher's exit code does not say, for the script that started the job: run directory and exit code.

The script names a file in the environment (launch/local.sh does); rank 0 adds a line `name=value` at a time.
"""

from __future__ import annotations

import contextlib
import os

VARIABLE = "HVD_DQN_STATUS_FILE"


def write_status(name: str, value: object) -> None:
    """Adds a line, if a file is named; called on rank 0. A file that cannot be written costs only the line.

    Args:
      name: `run_directory`, once it can be resumed from, or `exit_code`, written last by a job that ends by itself.
      value: anything that is one line as a text.
    """
    path = os.environ.get(VARIABLE)
    if path:
        with contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")
