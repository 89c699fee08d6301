"""Runs hvd-dqn doctor on rank 0, while rank 1 does nothing."""

from __future__ import annotations

import os
import sys
import time

from hvd_dqn.cli.doctor import main

if __name__ == "__main__":
    if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        time.sleep(600.0)
    sys.exit(main(["--wait-seconds", sys.argv[1]]))
