"""What the launcher's environment variables say before anything heavy is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

_LAUNCHERS = (
    # rank, size, rank on this host, ranks on this host
    ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),  # horovodrun --gloo
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # MPICH
)


@dataclass(frozen=True)
class Launch:
    """How this process was started."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    under_launcher: bool = False
    under_mpi: bool = False
    elastic: bool = False

    @property
    def one_host(self) -> bool:
        """Returns whether all ranks are on this host."""
        return self.local_size == self.size


def read_launch(environ: Mapping[str, str] = os.environ) -> Launch:
    """Reads the launcher's variables; a process that no launcher started is rank 0 of 1."""
    for rank, size, local_rank, local_size in _LAUNCHERS:
        if size in environ and rank in environ:
            place = (environ.get(local_rank, 0), environ.get(local_size, 1))
            if rank == "PMI_RANK" and local_rank not in environ and "SLURM_LOCALID" in environ:  # srun --mpi=pmi2
                place = _place_in_slurm(environ)
            return Launch(
                rank=int(environ[rank]),
                size=int(environ[size]),
                local_rank=int(place[0]),
                local_size=int(place[1]),
                under_launcher=True,
                under_mpi=rank != "HOROVOD_RANK",
                elastic=environ.get("HOROVOD_ELASTIC") == "1",
            )
    if "PMIX_RANK" in environ and "SLURM_NTASKS" in environ:  # srun --mpi=pmix
        local = _place_in_slurm(environ)
        return Launch(
            rank=int(environ["PMIX_RANK"]),
            size=int(environ["SLURM_NTASKS"]),
            local_rank=local[0],
            local_size=local[1],
            under_launcher=True,
            under_mpi=True,
        )
    return Launch()


def tasks_per_node(text: str) -> list[int]:
    """Returns the number of tasks on each node from Slurm's short form, such as 2(x3),1."""
    counts: list[int] = []
    for count, _, times in re.findall(r"(\d+)(\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    return counts


def _place_in_slurm(environ: Mapping[str, str]) -> tuple[int, int]:
    """Returns a task's number on its node, and how many tasks the node has."""
    names = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    counts = tasks_per_node(next((environ[name] for name in names if name in environ), "1"))
    node = int(environ.get("SLURM_NODEID", 0))
    return int(environ.get("SLURM_LOCALID", 0)), counts[min(node, len(counts) - 1)]
