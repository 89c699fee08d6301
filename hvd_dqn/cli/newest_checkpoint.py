"""Prints how far a run has come: the env steps of its newest checkpoint, 0 if there is none.

    python -m hvd_dqn.cli.newest_checkpoint --name first --resume auto ...

The arguments are those of train.py. A batch script asks before and after a job whether it got any further.
"""

from __future__ import annotations

import sys

from hvd_dqn.cli.arguments import own_directory, parse
from hvd_dqn.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from hvd_dqn.run.directory import newest_checkpoint, read_config_of


def main(arguments: list[str]) -> int:
    """Prints the number and returns the exit code."""
    try:
        config = parse(arguments, read_config_of, quiet=False)
        print(newest_checkpoint(own_directory(config).checkpoints_at(config.job.checkpoint_path)) or 0)
    except UserError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
