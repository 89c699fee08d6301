"""Laws of reading the launchers' variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hvd_dqn.distributed.launcher import Launch, read_launch
from hvd_dqn.distributed.runtime import prepare_mpi

GLOO = {"HOROVOD_RANK": "3", "HOROVOD_SIZE": "8", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "2"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
SLURM = {"PMIX_RANK": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.mark.parametrize("variables", [GLOO, OPEN_MPI, MPICH, SLURM], ids=["gloo", "open-mpi", "mpich", "srun"])
def test_each_launchers_variables_are_read(variables: dict[str, str]) -> None:
    under_mpi = variables is not GLOO
    assert read_launch(variables) == Launch(3, 8, 1, 2, under_launcher=True, under_mpi=under_mpi)


def test_a_process_that_no_launcher_started_is_alone() -> None:
    assert read_launch({}) == Launch(0, 1, 0, 1, under_launcher=False)


def test_a_process_inside_an_allocation_but_outside_srun_is_alone() -> None:
    """Sbatch's own shell has Slurm's variables, but no rank."""
    assert read_launch({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_NTASKS_PER_NODE": "2"}) == Launch()


def test_a_size_without_a_rank_is_no_launch() -> None:
    assert read_launch({"HOROVOD_SIZE": "4"}) == Launch()


@pytest.mark.parametrize(("text", "local_size"), [("2", 2), ("2(x3)", 2), ("4(x2),3", 4), ("4,3", 4), ("2,1(x2)", 2)])
def test_slurms_tasks_per_node_may_be_a_list(text: str, local_size: int) -> None:
    """Slurm writes 2(x3) for three nodes of two tasks, and 4,3 for two uneven ones."""
    variables = {"PMIX_RANK": "0", "SLURM_NTASKS": "7", "SLURM_TASKS_PER_NODE": text}
    assert read_launch(variables).local_size == local_size


@pytest.mark.parametrize("way", [{"PMIX_RANK": "4"}, {"PMI_RANK": "4", "PMI_SIZE": "5"}], ids=["pmix", "pmi2"])
def test_under_srun_the_place_on_the_host_is_slurms(way: dict[str, str]) -> None:
    """Nodes of one step may have different numbers of tasks, and the step may have fewer than the job."""
    step = {"SLURM_NTASKS": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "3,2"}
    launch = read_launch(way | step | {"SLURM_NTASKS_PER_NODE": "8"})
    assert launch == Launch(4, 5, 1, 2, under_launcher=True, under_mpi=True)


def test_missing_local_variables_mean_one_rank_per_host() -> None:
    launch = read_launch({"PMI_RANK": "1", "PMI_SIZE": "4"})
    assert (launch.rank, launch.local_rank, launch.local_size) == (1, 0, 1)


def test_horovods_variables_win_over_mpis() -> None:
    """`mpirun horovodrun` exports both; the rank of the job is Horovod's."""
    assert read_launch(OPEN_MPI | GLOO | {"HOROVOD_RANK": "5"}).rank == 5


def _open_mpi_settings(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str], *, one_host: bool, cores: int = 2
) -> dict[str, str]:
    environ = {"PATH": os.environ["PATH"], **own}
    monkeypatch.setattr(os, "environ", environ)
    prepare_mpi(Launch(size=2 if one_host else 4, local_size=2), cores)
    return environ


def test_between_hosts_open_mpi_is_given_rules_that_prefer_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _open_mpi_settings(monkeypatch, {}, one_host=False)
    assert settings["OMPI_MCA_coll_tuned_use_dynamic_rules"] == "1"
    rules = Path(settings["OMPI_MCA_coll_tuned_dynamic_rules_filename"]).read_text()
    numbers = [list(map(int, line.split())) for line in (text.split("#")[0] for text in rules.splitlines()) if line]
    assert numbers[:3] == [[1], [2], [2]]  # one collective, the allreduce, rules for two sizes of the world


def test_on_one_host_open_mpi_keeps_its_own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _open_mpi_settings(monkeypatch, {}, one_host=True)
    assert not any("dynamic" in name for name in settings)


@pytest.mark.parametrize(
    ("cores", "own", "yields"),
    [
        (2, {}, None),  # a core for each of the two ranks
        (1, {}, "1"),
        (1, {"OMPI_MCA_orte_bound_at_launch": "1"}, None),  # mpirun has bound each rank to its core
        (1, {"OMPI_MCA_mpi_yield_when_idle": "0"}, "0"),
    ],
)
def test_only_ranks_that_share_a_core_yield_it_while_they_wait(
    cores: int, own: dict[str, str], yields: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _open_mpi_settings(monkeypatch, own, one_host=True, cores=cores)
    assert settings.get("OMPI_MCA_mpi_yield_when_idle") == yields


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, "^openib,tcp"),
        ({"OMPI_MCA_btl": "^openib"}, "^openib,tcp"),  # horovodrun's
        ({"OMPI_MCA_btl": "self,tcp"}, "self,tcp"),
    ],
)
def test_on_one_host_open_mpi_leaves_tcp_out_unless_the_user_chooses(
    given: dict[str, str], used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _open_mpi_settings(monkeypatch, given, one_host=True)["OMPI_MCA_btl"] == used
    assert _open_mpi_settings(monkeypatch, given, one_host=False).get("OMPI_MCA_btl") == given.get("OMPI_MCA_btl")


def test_open_mpi_settings_of_the_user_win(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"OMPI_MCA_coll_tuned_dynamic_rules_filename": "/theirs", "OMPI_MCA_mpi_yield_when_idle": "0"}
    settings = _open_mpi_settings(monkeypatch, own, one_host=False)
    assert {name: settings[name] for name in own} == own
