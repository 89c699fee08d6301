"""Parameter servers: the same updates as by an allreduce, and what they do when workers and servers fail."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import PROGRAMS, surviving
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

Stream = Callable[[str, int], list[dict[str, np.ndarray]]]
"""stream(kind, workers): what each worker saved."""
STREAMS = ("", "unclipped/", "prioritized/", "qr/")


@pytest.fixture(scope="module")
def stream(persistent_ranks: PersistentRanks, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """Returns what learner_stream.py gives; each kind and number of workers is run once."""

    @functools.cache
    def at(kind: str, workers: int) -> list[dict[str, np.ndarray]]:
        folder: Path = tmp_path_factory.mktemp(f"{kind}{workers}")
        servers = int(kind.partition("-")[2] or 0)
        persistent_ranks.run_well(
            workers + servers, folder, kind, program=PROGRAMS / "learner_stream.py", seconds=200.0
        )
        return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(workers)]

    return at


@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (2, 2), pytest.param(4, 1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STREAMS)
def test_synchronous_servers_end_in_the_weights_of_an_allreduce(
    stream: Stream, workers: int, servers: int, name: str
) -> None:
    """A hundred updates on one stream: weights, target and optimizer state within 1e-5, and equal on all workers."""
    summed, served = stream("tensorflow", workers), stream(f"ps-{servers}", workers)
    for vector in ("online", "target", "optimizer/momentum", "optimizer/velocity"):
        assert {worker[name + vector].tobytes() for worker in served} == {served[0][name + vector].tobytes()}, vector
        np.testing.assert_allclose(served[0][name + vector], summed[0][name + vector], rtol=0, atol=1e-5)


@pytest.mark.parametrize("servers", [1, 2])
def test_two_workers_gradients_have_one_sum_only_and_give_the_same_bits(stream: Stream, servers: int) -> None:
    """Without clipping, whose norm several servers add in another order, the weights are bitwise those of allreduce."""
    names = ("unclipped/online", "unclipped/optimizer/velocity", *(("online",) if servers == 1 else ()))
    for name in names:
        assert np.array_equal(stream("tensorflow", 2)[0][name], stream(f"ps-{servers}", 2)[0][name]), name


@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (2, 2), pytest.param(4, 1, marks=pytest.mark.slow)])
def test_what_rides_with_the_gradient_arrives(stream: Stream, workers: int, servers: int) -> None:
    """Statistics are global means, signals are sums, and every worker learns the largest priority of all."""
    summed, served = stream("tensorflow", workers), stream(f"ps-{servers}", workers)
    for ours, theirs in zip(served, summed, strict=True):
        for name in ("report_mse", "report_huber", "report_weighted", "gradient_weighted"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)
        assert ours["signals"].tolist() == [workers, sum(range(workers))]
        np.testing.assert_allclose(ours["priorities"], theirs["priorities"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (3, 2)])
def test_one_round_of_asynchronous_workers_moves_the_weights_by_one_synchronous_step(
    stream: Stream, workers: int, servers: int
) -> None:
    """Plain gradient descent, each worker's gradient from the same parameters; shares of 128 on 3 are uneven."""
    full = stream("tensorflow", 1)[0]
    for worker in stream(f"async-{servers}", workers):
        for loss in ("mse", "huber"):
            gradient = full[f"gradient_{loss}"]
            np.testing.assert_allclose(worker[f"gradient_{loss}"], gradient, rtol=1e-4, atol=1e-6)


Messages = Callable[..., tuple[list[list[float]], list[dict[str, Any]]]]
"""messages(pushes, staleness=, delay=, killed=): the weights, and what each of two servers counted."""


@pytest.fixture
def messages(persistent_ranks: PersistentRanks, tmp_path: Path) -> Messages:
    """Returns a function that runs gradient_messages.py on four workers and two servers."""

    def run(pushes: int, *, staleness: int = -1, delay: int = 200, killed: int = 0) -> Any:
        options, program = map(str, (pushes, staleness, killed, delay)), PROGRAMS / "gradient_messages.py"
        if killed:
            with surviving(6, program, tmp_path, *options) as launch:
                outcome = launch.finish(300.0)
            assert outcome.code == 0, outcome.output
        else:
            persistent_ranks.run_well(6, tmp_path, *options, program=program, seconds=300.0)
        servers = [json.loads((tmp_path / f"server{rank}.json").read_text()) for rank in (4, 5)]
        return json.loads((tmp_path / "weights.json").read_text()), servers

    return run


@pytest.mark.parametrize("pushes", [600, pytest.param(6250, marks=pytest.mark.slow)])
def test_no_gradient_is_lost_or_applied_twice(messages: Messages, pushes: int) -> None:
    """6,250 gradients of each of four workers to two servers are 100,000 messages; a tenth of them comes twice."""
    weights, servers = messages(pushes)
    assert weights == [[-pushes] * 4] * 2
    for server in servers:
        assert server["applied"] == {str(worker): pushes for worker in range(4)}
        assert server["repeated"] == 4 * pushes // 10


def test_a_server_sleeps_while_nothing_comes(messages: Messages) -> None:
    """CPU time, which does not depend on the load of the machine."""
    _, servers = messages(20)
    for server in servers:
        wall, own = server["idle"]
        assert wall > 1.0
        assert own < 0.1 * wall


@pytest.mark.parametrize("staleness", [1, 4])
def test_no_worker_is_further_ahead_than_the_staleness_that_is_allowed(messages: Messages, staleness: int) -> None:
    """Worker 1 is slow; the others wait for it, and come as far as they may by the coordinator's clocks."""
    _, servers = messages(200, staleness=staleness, delay=5000)
    assert servers[0]["largest_lead"] == staleness


def test_without_a_limit_a_slow_worker_stops_no_other(messages: Messages) -> None:
    _, servers = messages(200, delay=5000)
    assert servers[0]["largest_lead"] > 20


@pytest.mark.parametrize("staleness", [pytest.param(-1, marks=pytest.mark.slow), 4])
def test_a_worker_that_is_killed_in_the_middle_of_a_push_takes_no_gradient_with_it(
    messages: Messages, staleness: int
) -> None:
    """Each server has applied what reached it whole: all of the others', and the last one on one server at most."""
    pushes, killed = 1000, 300
    weights, servers = messages(pushes, staleness=staleness, killed=killed)
    for shard, server in zip(weights, servers, strict=True):
        assert shard[:3] == [-pushes] * 3
        assert server["applied"]["3"] == -shard[3]
        assert -shard[3] in (killed, killed + 1)
