"""A short run for whatever launcher, and what it ends in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from launching import newest_checkpoint

SHORT_RUN = (
    *("--preset", "dqn"),  # without logarithms, which the libraries of an image may round in another way
    *("--total-env-steps", "1000", "--learning-starts", "200", "--log-period", "200", "--seed", "4"),
    *("--evaluation-period", "500", "--evaluation-episodes", "5", "--final-evaluation-episodes", "6"),
)


def weights(run_directory: Path) -> str:
    """Returns the checksum of the newest checkpoint's online and target network and optimizer state."""
    return hashlib.sha256((newest_checkpoint(run_directory) / "learner.safetensors").read_bytes()).hexdigest()
