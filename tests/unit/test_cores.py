"""Laws of how the ranks of a host share its cores, without ranks; with ranks: tests/parallel/test_parallel_cores.py."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from hvd_dqn.distributed.cores import Peers, cpu_quota, find_peers, own_cores, threads_of
from hvd_dqn.distributed.launcher import Launch, read_launch


@pytest.mark.parametrize(("cores", "ranks"), [(8, 2), (8, 3), (5, 5), (7, 1)])
def test_ranks_share_their_cores_out(cores: int, ranks: int) -> None:
    usable = list(range(cores))
    parts = [own_cores(Peers(rank, ranks), usable) for rank in range(ranks)]
    assert sorted(core for part in parts for core in part) == usable
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("cores", "ranks"), [(8, 9), (2, 4), (2, 5), (1, 2)])
def test_more_ranks_than_cores_share_them_evenly(cores: int, ranks: int) -> None:
    parts = [own_cores(Peers(rank, ranks), list(range(cores))) for rank in range(ranks)]
    assert all(len(part) == 1 for part in parts)
    counts = [parts.count([core]) for core in range(cores)]
    assert max(counts) - min(counts) <= 1


def test_the_cores_of_a_container_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer cores than the host has are no binding: cores 0 to 3 of 64, four ranks under horovodrun --gloo."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for rank in range(4):
        variables = {"HOROVOD_RANK": rank, "HOROVOD_SIZE": 4, "HOROVOD_LOCAL_RANK": rank, "HOROVOD_LOCAL_SIZE": 4}
        launch = read_launch({name: str(value) for name, value in variables.items()})
        cores = own_cores(find_peers(launch, {}), [0, 1, 2, 3])
        assert cores == [rank]
        assert threads_of(len(cores), launch.local_size, math.inf) == 1


@pytest.mark.parametrize(("usable", "expected"), [({4, 5}, Peers(0, 1)), (set(range(8)), Peers(1, 4))])
def test_a_task_keeps_the_cores_that_slurm_gave_it_alone(
    usable: set[int], expected: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And shares those that the whole job has on the node, where Slurm binds no task."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable)
    step = {"SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_ID": "0"}
    assert find_peers(Launch(1, 4, 1, 4, under_launcher=True), step) == expected


@pytest.mark.parametrize(
    ("cores", "local_size", "quota", "threads"),
    [(16, 4, math.inf, 16), (16, 4, 4.0, 1), (16, 4, 10.0, 2), (1, 4, 64.0, 1), (8, 4, 0.5, 1), (4, 1, 2.5, 2)],
)
def test_threads_stay_within_the_ranks_share_of_the_quota(
    cores: int, local_size: int, quota: float, threads: int
) -> None:
    assert threads_of(cores, local_size, quota) == threads


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4.0),  # a container with version 2
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),  # the parent's counts
        (
            "4:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "25000"},
            2.0,
        ),
        ("1:cpu:/docker/17\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1.0),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_the_quota_of_the_control_groups_is_read(
    groups: str, files: dict[str, str], cores: float, tmp_path: Path
) -> None:
    membership = tmp_path / "membership"
    membership.write_text(groups)
    for name, content in files.items():
        file = tmp_path / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert cpu_quota(membership, tmp_path / "mounted") == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "missing") == math.inf
