"""Runs train.py with parts that are registered here alone: an algorithm, a network, a replay."""

from __future__ import annotations

import runpy
from pathlib import Path

from hvd_dqn.registry import ALGORITHMS, NETWORKS, REPLAYS

ALGORITHMS["fifty-one"] = "seam_parts:FiftyOne"
NETWORKS["two-headed"] = "seam_parts:build_two_headed"
REPLAYS["by-priority"] = "seam_parts:PriorityReplay"

runpy.run_path(str(Path(__file__).resolve().parents[3] / "train.py"), run_name="__main__")
