"""Touches a file while the job makes progress, for a container's health check (launch/container/healthcheck)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

VARIABLE = "HVD_DQN_HEARTBEAT_FILE"
"""The environment variable that names the file; the image sets it."""
_PERIOD_SECONDS = 5.0


def make_heartbeat(local_rank: int, environ: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Returns a function to call at each sign of progress; it does nothing on ranks that have no file to touch.

    Args:
      local_rank: only a host's first rank touches the file.
      environ: where the file is named.
    """
    path = environ.get(VARIABLE)
    if not path or local_rank > 0:
        return lambda: None
    touched = -_PERIOD_SECONDS

    def beat() -> None:
        nonlocal touched
        now = time.monotonic()
        if now - touched >= _PERIOD_SECONDS:
            touched = now
            with contextlib.suppress(OSError):
                Path(path).touch()

    return beat
