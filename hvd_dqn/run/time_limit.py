"""The time limit of a job: given by the user, or the time left in its Slurm allocation."""

from __future__ import annotations

import os
import re
import subprocess
import time

from hvd_dqn.errors import UserError

_SLURM_FORM = re.compile(r"(?:(?P<days>\d+)-(?=\d))?(?P<rest>\d+(?::\d{1,2}){0,2})")
_QUERY_SECONDS = 20.0


def parse_time(text: str) -> float:
    """Parses a time in Slurm's forms M, M:S, H:M:S, D-H, D-H:M, D-H:M:S and returns seconds.

    Raises:
      UserError: if the text has none of these forms.
    """
    match = _SLURM_FORM.fullmatch(text)
    if match is None:
        raise UserError(f"--time-limit {text}: give minutes, H:M:S or D-H:M:S, or slurm inside a Slurm job")
    parts = [int(part) for part in match["rest"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return float(int(match["days"]) * 86_400 + hours * 3_600 + minutes * 60 + seconds)
    if len(parts) == 1:
        return parts[0] * 60.0
    hours, minutes, seconds = [0, *parts][-3:]
    return float(hours * 3_600 + minutes * 60 + seconds)


def seconds_left(limit: str, running_for: float) -> float | None:
    """Returns the seconds until the time limit, or None without a limit.

    Args:
      limit: "" for no limit, "slurm", or a time in Slurm's forms, counted from the start of the process.
      running_for: seconds since the start of the process.

    Raises:
      UserError: if the limit cannot be parsed, or Slurm does not report one.
    """
    if not limit:
        return None
    return _slurm_seconds_left() if limit == "slurm" else parse_time(limit) - running_for


def _slurm_seconds_left() -> float | None:
    """Returns the time left in the allocation: from the environment (Slurm 22.05 and later) or from squeue."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise UserError("--time-limit slurm: this is no Slurm job (SLURM_JOB_ID is not set); give a time instead")
    if "SLURM_JOB_END_TIME" in os.environ:
        return float(os.environ["SLURM_JOB_END_TIME"]) - time.time()
    if "SLURM_ARRAY_TASK_ID" in os.environ:  # SLURM_JOB_ID may be the id of the whole array
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%L"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_QUERY_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"--time-limit slurm: squeue does not report the time left ({error}); give a time instead"
        ) from None
    left = answer.stdout.strip()
    return None if left in ("UNLIMITED", "NOT_SET") else parse_squeue(left)


def parse_squeue(left: str) -> float:
    """Parses the time left as squeue prints it and returns seconds.

    Raises:
      UserError: if it is not a time, such as INVALID for a job past its limit.
    """
    try:
        return parse_time(left)
    except UserError:
        raise UserError(f"--time-limit slurm: squeue says {left!r}; give a time instead") from None
