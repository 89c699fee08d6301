"""Short runs under Slurm, and what they end in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from launching import ROOT, newest_checkpoint
from slurm_cluster import Job, Slurm

SUBMIT = ROOT / "launch" / "slurm" / "submit"
TWO_NODES = ("--nodes", "2", "--ranks-per-node", "1")
SHORT_RUN = (
    *("--total-env-steps", "1000", "--learning-starts", "200", "--log-period", "200", "--seed", "4"),
    *("--evaluation-period", "500", "--evaluation-episodes", "5", "--final-evaluation-episodes", "6"),
)


def submit(slurm: Slurm, *options: str, run: tuple[str, ...], folder: Path, name: str = "run") -> Job:
    """Submits a run that has to be accepted."""
    answer = slurm.run(SUBMIT, *options, "--", *run, "--runs-dir", str(folder), "--name", name)
    return slurm.submitted(answer)


def weights(run_directory: Path) -> str:
    """Returns the checksum of the newest checkpoint's online and target network and optimizer state."""
    return hashlib.sha256((newest_checkpoint(run_directory) / "learner.safetensors").read_bytes()).hexdigest()
