"""Parameter servers: the same updates as by an allreduce, and what they do when workers and servers fail."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from launching import PROGRAMS
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
        servers = int(kind.removeprefix("ps-")) if kind.startswith("ps-") else 0
        persistent_ranks.run_well(
            workers + servers, folder, kind, program=PROGRAMS / "learner_stream.py", seconds=200.0
        )
        return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(workers)]

    return at


@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (2, 2), (4, 1)])
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


@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (2, 2), (4, 1)])
def test_what_rides_with_the_gradient_arrives(stream: Stream, workers: int, servers: int) -> None:
    """Statistics are global means, signals are sums, and every worker learns the largest priority of all."""
    summed, served = stream("tensorflow", workers), stream(f"ps-{servers}", workers)
    for ours, theirs in zip(served, summed, strict=True):
        for name in ("report_mse", "report_huber", "report_weighted", "gradient_weighted"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)
        assert ours["signals"].tolist() == [workers, sum(range(workers))]
        np.testing.assert_allclose(ours["priorities"], theirs["priorities"], rtol=1e-4, atol=1e-5)
