"""Runs train.py where rank 1 sees another folder by the path of the run directory, as on a host with its own disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hostile_envs import own_rank

import train
from hvd_dqn.run import shared_folder
from hvd_dqn.training import run_directory


def main() -> int:
    """Runs on every rank."""
    check = shared_folder.check_shared_folder

    def elsewhere(communicator: Any, folder: Path, flag: str) -> None:
        check(communicator, folder / "of another disk" if own_rank() == 1 else folder, flag)

    waits = shared_folder._WAIT_SECONDS
    run_directory.check_shared_folder, shared_folder._WAIT_SECONDS = elsewhere, 0.2
    try:
        return train.main(sys.argv[1:])
    finally:
        run_directory.check_shared_folder, shared_folder._WAIT_SECONDS = check, waits


if __name__ == "__main__":
    sys.exit(main())
