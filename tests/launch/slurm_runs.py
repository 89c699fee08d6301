"""How the tests submit runs to Slurm."""

from __future__ import annotations

from pathlib import Path

from launching import ROOT
from slurm_cluster import Job, Slurm

SUBMIT = ROOT / "launch" / "slurm" / "submit"
TWO_NODES = ("--nodes", "2", "--ranks-per-node", "1")


def submit(slurm: Slurm, *options: str, run: tuple[str, ...], folder: Path, name: str = "run") -> Job:
    """Submits a run that has to be accepted."""
    answer = slurm.run(SUBMIT, *options, "--", *run, "--runs-dir", str(folder), "--name", name)
    return slurm.submitted(answer)
