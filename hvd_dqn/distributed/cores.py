"""The cores of a rank: its share of those that the ranks of its host may use together."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.shares import first_index, share

_CPUSET_BYTES = 1024
"""Of a set of cores as a bit mask: more than Linux supports."""


@dataclass(frozen=True)
class Peers:
    """The ranks of a host that may use the same cores as this rank."""

    index: int
    """This rank's place among them."""
    count: int


def find_peers(launch: Launch, environ: Mapping[str, str] = os.environ) -> Peers:
    """Returns the ranks that share this rank's cores. COLLECTIVE under MPI, which it then initialises.

    Having fewer cores than the host does not mean that this rank was bound: a container, a Slurm job or `taskset` gives
    one set to all ranks, while a launcher that binds gives each rank its own. Under MPI the ranks of a host compare
    their sets. Under plain srun, Slurm says how many cores the job has on the node. horovodrun with Gloo never binds.
    """
    if launch.local_size == 1:
        return Peers(0, 1)
    if launch.under_mpi:
        return _compare_over_mpi()
    if "SLURM_CPUS_ON_NODE" in environ and "SLURM_STEP_ID" in environ:
        bound = len(os.sched_getaffinity(0)) < int(environ["SLURM_CPUS_ON_NODE"])
        return Peers(0, 1) if bound else Peers(launch.local_rank, launch.local_size)
    return Peers(launch.local_rank, launch.local_size)


def _compare_over_mpi() -> Peers:
    """Compares the sets of cores of the ranks of this host; a collective."""
    from mpi4py import MPI

    host = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)  # COLLECTIVE
    own = sum(1 << core for core in os.sched_getaffinity(0)).to_bytes(_CPUSET_BYTES, "little")
    gathered = bytearray(_CPUSET_BYTES * host.size)
    host.Allgather([own, MPI.BYTE], [gathered, MPI.BYTE])  # COLLECTIVE
    sets = [gathered[start : start + _CPUSET_BYTES] for start in range(0, len(gathered), _CPUSET_BYTES)]
    equal = [rank for rank, cores in enumerate(sets) if cores == own]
    peers = Peers(equal.index(host.rank), len(equal))
    host.Free()
    return peers


def own_cores(peers: Peers, usable: Sequence[int]) -> list[int]:
    """Returns this rank's cores, or one core that it shares where there are fewer cores than ranks.

    Args:
      peers: the ranks that share the usable cores.
      usable: the numbers of the cores that this rank may use.
    """
    if peers.count > len(usable):
        return [usable[peers.index * len(usable) // peers.count]]
    first = first_index(len(usable), peers.index, peers.count)
    return list(usable[first : first + share(len(usable), peers.index, peers.count)])


def usable_cores() -> int:
    """Returns how many cores' worth of CPU time this process and its children have, at least 1."""
    return max(1, int(min(len(os.sched_getaffinity(0)), cpu_quota())))


def threads_of(cores: int, local_size: int, quota: float) -> int:
    """Returns how many threads a rank starts: one per core, within its share of the CPU quota.

    Args:
      cores: this rank's.
      local_size: the number of ranks on this host, which share the quota.
      quota: of CPU time, in cores; infinite if there is none.
    """
    if math.isinf(quota):
        return cores
    return max(1, min(cores, int(quota / local_size)))


def cpu_quota(membership: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> float:
    """Returns the CPU time that this process' control groups allow, in cores; infinite if they do not limit it.

    Containers (`docker --cpus 4`, a pod's limit) set it. Reads versions 1 and 2.

    Args:
      membership: the file that names this process' groups.
      mounted: where the control groups are.
    """
    return min([math.inf, *map(_quota_of, control_groups("cpu", membership, mounted))])


def control_groups(
    controller: str, membership: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> list[Path]:
    """Returns the folders of this process' control groups and of those above that may limit it; some may not exist.

    Args:
      controller: cpu or memory.
      membership: the file that names this process' groups.
      mounted: where the control groups are.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    groups: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if not controllers:
            roots = [mounted, mounted / "unified"]
        elif controller in names:
            roots = [mounted / controllers, mounted / controller]
        else:
            continue
        # In a container the path may be the host's, and the container's own group is mounted as the root.
        group = Path(path.lstrip("/"))
        groups += [root / part for root in roots for part in (group, *group.parents)]
    return groups


def _quota_of(group: Path) -> float:
    """Returns the quota of one control group, in cores."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf
