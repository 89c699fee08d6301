"""Runs hvd-dqn doctor on a folder of each rank's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hvd_dqn.cli.doctor import main

if __name__ == "__main__":
    own = Path(sys.argv[1], f"rank{os.environ['OMPI_COMM_WORLD_RANK']}")
    own.mkdir()
    os.chdir(own)
    sys.exit(main(["--folder", "."]))
