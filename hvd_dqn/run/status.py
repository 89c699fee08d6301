"""Reports the run directory and the exit code to the script that started the job, through a file.

Launchers do not pass on the exit code of train.py. The script (launch/local.sh does this) names a file in the
environment, and rank 0 appends lines of the form `name=value`.
"""

from __future__ import annotations

import contextlib
import os

VARIABLE = "HVD_DQN_STATUS_FILE"


def write_status(name: str, value: object) -> None:
    """Appends a line to the status file, if there is one. Called on rank 0, or where a job fails. Errors are ignored.

    Args:
      name: `run_directory`, written once the run can be resumed, or `exit_code`, written last: the last line counts.
      value: any value whose text is one line.
    """
    path = os.environ.get(VARIABLE)
    if path:
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK  # no wait for a reader of a pipe
            with open(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
                file.write(f"{name}={value}\n")
