"""The options of launch/slurm/submit: what they are, and which of them are refused."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.cli.seeds import parse_seeds
from hvd_dqn.errors import UserError
from hvd_dqn.run.time_limit import parse_time

DESCRIPTION = (
    "Submits a training run to Slurm: launch/slurm/submit --nodes 4 --ranks-per-node 2 -- --preset lunarlander. "
    "What comes after -- goes to train.py. The job saves before its time limit or a preemption, goes back to the queue "
    "and resumes until the run is finished."
)
_MEMORY = re.compile(r"\d+[KMGT]?")


@dataclass(frozen=True)
class Allocation:
    """What to ask Slurm for."""

    nodes: int = 1
    """Nodes of the allocation."""
    ranks_per_node: int = 1
    """Ranks on each node: one per GPU with --gpus, else one per --cores-per-rank cores."""
    cores_per_rank: int = 1
    """Cores of each rank, and the size of its thread pools."""
    gpus: bool = False
    """Ask for one GPU per rank."""
    time: str = "01:00:00"
    """Time limit of one allocation in Slurm's forms; the run takes as many allocations as it needs."""
    partition: str = ""
    """Slurm's partition; empty: the site's default."""
    account: str = ""
    """Slurm's account; empty: the site's default."""
    memory: str = ""
    """Memory per node in Slurm's form (such as 16G); empty: the site's default."""

    @property
    def ranks(self) -> int:
        """Returns the number of ranks."""
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class Submission:
    """How to submit."""

    allocation: Allocation = field(default_factory=Allocation)
    container: str = ""
    """Container image: a file or folder, or a name for Pyxis; empty: the environment in .venv."""
    runtime: Literal["apptainer", "charliecloud", "pyxis"] = "apptainer"
    """What runs the container."""
    launcher: Literal["auto", "srun", "pmix", "pmi2", "mpirun", "horovodrun", "elastic"] = "auto"
    """What starts the ranks; auto: for CPU jobs MPI (pmix, else mpirun) where it works, else plain srun with Gloo."""
    min_ranks: int = 0
    """Elastic jobs only: wait while there are fewer ranks; 0: the ranks of one node."""
    seeds: str = ""
    """Seeds of a job array, one run each, such as 0-4 or 1,3,9; empty: one run."""
    environment: tuple[str, ...] = ()
    """Names of environment variables that the job gets as well."""
    slurm: tuple[str, ...] = ()
    """Further options of sbatch as they are, such as --slurm=--qos=long."""
    dry_run: bool = False
    """Print the job script and submit nothing."""


def read_submission(arguments: Sequence[str]) -> Submission:
    """Parses the options before the "--".

    Raises:
      UserError: for anything wrong with them.
      SystemExit: with code 0 after --help.
    """
    import tyro

    form = tyro.conf.UseAppendAction[Submission]
    submission: Submission = parse_dataclass(form, arguments, "launch/slurm/submit", DESCRIPTION)
    _check_allocation(submission.allocation)
    _check(submission)
    return submission


def _check_allocation(allocation: Allocation) -> None:
    for name in ("nodes", "ranks_per_node", "cores_per_rank"):
        value = getattr(allocation, name)
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}: it must be at least 1")
    try:
        parse_time(allocation.time)
    except UserError:
        raise UserError(f"--time {allocation.time}: give minutes, H:M:S or D-H:M:S") from None
    if allocation.memory and not _MEMORY.fullmatch(allocation.memory):
        raise UserError(f"--memory {allocation.memory}: give a number and K, M, G or T, such as 16G")


def _check(submission: Submission) -> None:
    if submission.seeds:
        parse_seeds(submission.seeds)
    if submission.container and submission.runtime != "pyxis" and not Path(submission.container).exists():
        raise UserError(
            f"--container {submission.container}: there is no such image; build it (docs/launching.md), or name the "
            "runtime that fetches it: --runtime pyxis"
        )
    if submission.container and submission.launcher in ("horovodrun", "elastic"):
        raise UserError(f"--launcher {submission.launcher} starts ranks over ssh, outside of containers: leave it out")
    if submission.min_ranks and submission.launcher != "elastic":
        raise UserError("--min-ranks is for ranks that may come and go: add --launcher elastic, or leave it out")
    if not 0 <= submission.min_ranks <= submission.allocation.ranks:
        raise UserError(f"--min-ranks {submission.min_ranks}: give 1 to {submission.allocation.ranks}, the job's ranks")
    if submission.container and submission.runtime == "pyxis" and submission.launcher == "mpirun":
        raise UserError("Pyxis belongs to srun: leave --launcher mpirun out, or choose --launcher pmix")
    _check_environment(submission.environment)


def _check_environment(names: Sequence[str]) -> None:
    """Refuses what names no variable that could be handed on."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(f"--environment {name}: give a variable's name alone; its value is the one it has here")
        if name not in os.environ:
            raise UserError(f"--environment {name}: no such environment variable here")
