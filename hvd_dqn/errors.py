"""Exit codes, and the errors that end a job with a message instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_REQUEUE = 75
"""The job was asked to stop and saved its state; `--resume` continues it (EX_TEMPFAIL of sysexits.h)."""


class UserError(ValueError):
    """A mistake that the user can fix. The message says how. Ends the job with exit code 2."""


class JobFault(UserError):
    """A fault while the job runs (in an environment, a disk, the weights), raised on all ranks."""


class StoreError(UserError):
    """A disk or an object store failed or refused a call. Never means that a file is absent."""


class RankFailure(Exception):
    """An error that no code expects, of one rank or several, raised on all ranks. Ends the job with exit code 1."""


class CheckpointError(Exception):
    """A checkpoint, or another file of a run, is damaged or foreign. The message says why."""


USE_OLD_VERSION = (
    "use version 0.1.0, commit e7dd1cb, or the one that wrote it (git checkout e7dd1cb && make setup, then the same "
    "command)"
)
"""What to do with a run or a checkpoint of an older format."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a hint at the known name that is nearest to an unknown one, to be put behind it; "" if none is near."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""
