"""Prints the env steps of a run's newest checkpoint, or 0 without one.

    python -m hvd_dqn.cli.newest_checkpoint --name first --resume auto ...

The arguments are those of train.py. Batch scripts call this before and after a job to see if it made progress.
"""

from __future__ import annotations

import sys

from hvd_dqn.checkpoint.listing import newest_checkpoint
from hvd_dqn.cli.arguments import own_directory, parse
from hvd_dqn.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from hvd_dqn.run.directory import read_config_of
from hvd_dqn.run.terminal import keep_standard_streams


def main(arguments: list[str]) -> int:
    """Prints the env steps and returns the exit code."""
    try:
        config = parse(arguments, read_config_of, quiet=False)
        print(newest_checkpoint(own_directory(config).checkpoints_at(config.job.checkpoint_path)) or 0)
    except UserError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return EXIT_DONE


if __name__ == "__main__":
    keep_standard_streams()
    sys.exit(main(sys.argv[1:]))
