"""The errors that end a job with a message instead of a traceback."""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_REQUEUE = 75
"""The job saved its state because it was asked to stop; `--resume` goes on (EX_TEMPFAIL of sysexits.h)."""


class UserError(ValueError):
    """A mistake that the user can mend; the message says how. Ends the job with exit code 2."""


class JobFault(UserError):
    """A fault met while the job runs (an environment, a disk, a diverged weight), told to all ranks."""


class CheckpointError(Exception):
    """A checkpoint, or a part of one, that cannot be used, and why."""
