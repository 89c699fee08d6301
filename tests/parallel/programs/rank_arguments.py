"""Runs a script with arguments of its own on one rank, as a wrong start script would.

    rank_arguments.py ODD_RANK ODD_SCRIPT "ODD ARGUMENTS" SCRIPT ARGUMENTS...

The odd rank runs ODD_SCRIPT with ARGUMENTS and the ODD ARGUMENTS, all others SCRIPT with ARGUMENTS.
"""

from __future__ import annotations

import runpy
import sys

from hostile_envs import own_rank


def main() -> None:
    """Runs on every rank."""
    odd_rank, odd_script, odd_arguments, script, *arguments = sys.argv[1:]
    if own_rank() == int(odd_rank):
        script, arguments = odd_script, [*arguments, *odd_arguments.split()]
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
