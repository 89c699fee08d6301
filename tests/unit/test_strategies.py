"""Strategies are refused where they cannot run, with the remedy; the start report names the one that runs."""

from __future__ import annotations

from typing import Any

import pytest

import hvd_dqn
import train
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.errors import UserError
from hvd_dqn.strategies import check_ranks, describe, is_asynchronous, servers_of
from hvd_dqn.training.parameter_server import ParameterServerJob
from hvd_dqn.validation import validate


def changed(**flat: Any) -> Config:
    """Returns the default configuration with some fields replaced."""
    return replace(Config(), flat)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"servers": 2}, "--servers is for --strategy ps-sync or ps-async, and --strategy is allreduce"),
        ({"strategy": "ps-sync", "servers": 0}, "--servers is 0: give at least 1"),
        ({"strategy": "ps-sync", "max_staleness": 3}, "--max-staleness is for --strategy ps-async"),
        ({"max_staleness": 0}, "--strategy is allreduce: give --strategy ps-async, or --max-staleness -1"),
        ({"strategy": "ps-async", "max_staleness": -2}, "--max-staleness is -2: give 0 or more, or -1 for no limit"),
        ({"strategy": "ps-sync", "staleness_lr": "inverse"}, "give --strategy ps-async, or --staleness-lr none"),
        ({"strategy": "ps-async", "learner": "native"}, "give --learner tensorflow, or leave --learner out"),
        ({"strategy": "ps-async", "policy_lag": 1}, "leave --policy-lag out, or give --strategy ps-sync"),
    ],
)
def test_flags_that_do_not_fit_the_strategy_are_refused_with_the_remedy(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        validate(changed(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"strategy": "ps-sync", "servers": 2, "policy_lag": 1},
        {"strategy": "ps-async", "max_staleness": 0, "policy_lag": 1},
        {"strategy": "ps-async", "max_staleness": 4, "staleness_lr": "inverse"},
    ],
)
def test_flags_that_fit_are_taken(fields: dict[str, Any]) -> None:
    validate(changed(**fields))


@pytest.mark.parametrize(
    ("servers", "ranks", "says"),
    [
        (1, {"size": 1, "by_mpi": False}, "needs at least 2 ranks, and the job has 1: start it by mpirun -np 2"),
        (2, {"size": 2}, "needs at least 3 ranks"),
        (3, {"size": 5}, "leaves 2 to work: .* give at most --servers 2"),
        (1, {"size": 4, "by_mpi": False}, "start them by mpirun, srun or horovodrun --mpi"),
        (1, {"size": 4, "by_mpi": False, "elastic": True}, "this job is elastic: give --strategy allreduce"),
    ],
)
def test_ranks_that_cannot_serve_and_work_are_refused(servers: int, ranks: dict[str, Any], says: str) -> None:
    config = changed(strategy="ps-async", servers=servers)
    with pytest.raises(UserError, match=says):
        check_ranks(config, **{"by_mpi": True, "elastic": False} | ranks)


def test_the_smallest_jobs_with_servers_are_taken() -> None:
    check_ranks(changed(strategy="ps-sync"), 2, by_mpi=True, elastic=False)
    check_ranks(changed(strategy="ps-sync", servers=2), 4, by_mpi=True, elastic=False)
    check_ranks(changed(), 1, by_mpi=False, elastic=True)


def test_one_process_is_refused_by_the_command_and_by_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--strategy", "ps-sync"]) == 2
    assert "needs at least 2 ranks" in capsys.readouterr().err
    with pytest.raises(UserError, match="needs at least 2 ranks"):
        hvd_dqn.train(strategy="ps-async")


def test_a_staleness_of_zero_is_the_synchronous_strategy() -> None:
    assert is_asynchronous(changed(strategy="ps-async"))
    assert is_asynchronous(changed(strategy="ps-async", max_staleness=1))
    assert not is_asynchronous(changed(strategy="ps-async", max_staleness=0))
    assert not is_asynchronous(changed(strategy="ps-sync"))


def test_the_start_report_names_the_strategy() -> None:
    assert describe(changed(), "native", 1) == "none (one rank)"
    assert describe(changed(), "native", 2) == "allreduce, by MPI_Allreduce"
    assert describe(changed(), "tensorflow", 2) == "allreduce, by Horovod inside the graph"
    served = describe(changed(strategy="ps-async", servers=2, max_staleness=3), "tensorflow", 2)
    assert served == "parameter server, 2 rank(s) more that serve, asynchronous, at most 3 updates ahead of the slowest"
    assert describe(changed(strategy="ps-async", max_staleness=0), "tensorflow", 1).endswith("synchronous")
    assert [servers_of(changed(servers=2)), servers_of(changed(strategy="ps-sync", servers=2))] == [0, 2]


@pytest.mark.parametrize(
    ("rank", "local_rank", "local_size", "device", "need_one"),
    [
        (0, 0, 4, "auto", 4),  # 4 workers on the first host, 2 and 2 servers on the second
        (5, 1, 4, "auto", 2),
        (6, 2, 4, "cpu", 4),
        (7, 3, 4, "cpu", 4),
    ],
)
def test_servers_take_no_gpu_and_leave_those_of_their_host_to_the_workers(
    rank: int, local_rank: int, local_size: int, device: str, need_one: int
) -> None:
    launch = Launch(rank, 8, local_rank, local_size, under_launcher=True, under_mpi=True)
    placed, own = ParameterServerJob(launch, changed(strategy="ps-sync", servers=2)).placed("auto")
    assert own == device
    assert placed.local_size == need_one
