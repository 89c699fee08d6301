"""Laws of sums over TCP: all ranks get the same bits, in their order; strangers stay out; who is lost is named."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.distributed.tcp_connections import Connections, meet, own_address
from hvd_dqn.distributed.tcp_vectors import TCPVector
from hvd_dqn.errors import UserError

from .agents import KERNELS

SECRET = b"s" * 64
SHORT, LONG = 32_768, 300_001
"""Floats of the others that go one way, and of a vector that goes two."""


def _connected(size: int) -> list[Connections]:
    """Returns the connections of ranks in one process."""
    sockets: list[list[socket.socket | None]] = [[None] * size for _ in range(size)]
    for one in range(size):
        for other in range(one):
            sockets[one][other], sockets[other][one] = socket.socketpair()
    return [Connections(range(size), rank, own) for rank, own in enumerate(sockets)]


@pytest.fixture(params=[2, 3, 5])
def connections(request: pytest.FixtureRequest) -> Iterator[list[Connections]]:
    """Yields the connections of some ranks and hangs up."""
    ranks = _connected(request.param)
    yield ranks
    for own in ranks:
        own.close()


def _on_all(ranks: list[Any], action: Callable[[int], Any]) -> list[Any]:
    """Runs an action on every rank, in a thread each."""
    with ThreadPoolExecutor(len(ranks)) as threads:
        return list(threads.map(action, range(len(ranks))))


def _vectors(size: int, length: int, seed: int = 0) -> np.ndarray:
    """Returns numbers of all sizes, whose sum depends on its order."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(size, length)) * 10.0 ** rng.integers(-6, 6, size=(size, length))).astype(np.float32)


def _in_order(vectors: np.ndarray) -> np.ndarray:
    total = vectors[0].copy()
    for vector in vectors[1:]:
        total += vector
    return total


@pytest.mark.parametrize("length", [1, 15, 16, 4099, SHORT // 2, SHORT // 2 + 1, LONG])
def test_all_ranks_get_the_sum_in_the_order_of_ranks(connections: list[Connections], length: int) -> None:
    vectors = _vectors(len(connections), length)
    exchanges = [TCPVector(KERNELS, own, length) for own in connections]
    kept = vectors.copy()
    for total in _on_all(connections, lambda rank: exchanges[rank].sum(vectors[rank])):
        np.testing.assert_array_equal(total, _in_order(vectors))
    np.testing.assert_array_equal(vectors, kept)


def test_many_sums_of_two_lengths_in_turn_do_not_mix(connections: list[Connections]) -> None:
    """An early rank's next letters wait behind its last ones."""
    lengths = (7, 20_000, 1, 150_000)
    exchanges = [[TCPVector(KERNELS, own, length) for length in lengths] for own in connections]

    def run(rank: int) -> bool:
        right = True
        for k in range(60):
            vectors = [np.full(lengths[k % 4], 2.0**other + k, np.float32) for other in range(len(connections))]
            if k % len(connections) == rank:
                time.sleep(0.002)  # more than the others spin
            right &= bool((exchanges[rank][k % 4].sum(vectors[rank]) == _in_order(np.array(vectors))).all())
        return right

    assert all(_on_all(connections, run))


@given(size=st.integers(2, 4), length=st.integers(1, 70_000), seed=st.integers(0, 99))
def test_any_number_of_ranks_and_any_length(size: int, length: int, seed: int) -> None:
    ranks = _connected(size)
    vectors = _vectors(size, length, seed)
    exchanges = [TCPVector(KERNELS, own, length) for own in ranks]
    for total in _on_all(ranks, lambda rank: exchanges[rank].sum(vectors[rank]).copy()):
        np.testing.assert_array_equal(total, _in_order(vectors))
    for own in ranks:
        own.close()


@pytest.mark.parametrize("length", [10, LONG])
def test_a_lost_rank_is_named_whatever_the_others_are_at(connections: list[Connections], length: int) -> None:
    gone = len(connections) - 1
    exchanges = [TCPVector(KERNELS, own, length) for own in connections]

    def run(rank: int) -> str:
        if rank == gone:
            time.sleep(0.05)
            connections[gone].close()
            return ""
        with pytest.raises(ConnectionError, match=r"rank \d was lost while gradients were summed: ") as caught:
            exchanges[rank].sum(np.zeros(length, np.float32))
        connections[rank].close()  # as its process does, when it ends
        return str(caught.value)

    said = _on_all(connections, run)
    assert f"rank {gone} was lost" in said[0]


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=8)


def test_ranks_meet_whoever_comes_first() -> None:
    listeners = [_listener() for _ in range(4)]
    members = [(10 + i, listener.getsockname()) for i, listener in enumerate(listeners)]

    def run(place: int) -> Connections:
        time.sleep(0.05 * (place % 3))
        rank = members[place][0]
        return Connections(range(10, 14), rank, meet(rank, listeners[place], members, SECRET, 20.0))

    ranks = _on_all(listeners, run)
    vectors = _vectors(4, 1000)
    exchanges = [TCPVector(KERNELS, own, 1000) for own in ranks]
    for total in _on_all(ranks, lambda rank: exchanges[rank].sum(vectors[rank])):
        np.testing.assert_array_equal(total, _in_order(vectors))
    for own in ranks:
        own.close()
    for listener in listeners:
        listener.close()


def test_a_stranger_is_turned_away_and_a_rank_that_comes_after_it_is_not() -> None:
    with _listener() as listener:
        place = listener.getsockname()
        strangers = [socket.create_connection(place) for _ in range(3)]
        strangers[0].sendall(b"t" * 64 + b"00000001")
        strangers[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
        strangers[1].shutdown(socket.SHUT_WR)
        strangers[2].close()
        with ThreadPoolExecutor(1) as threads:
            members = [(0, place), (1, place)]
            called = threads.submit(meet, 1, listener, members, SECRET, 20.0)
            sockets = meet(0, listener, members, SECRET, 20.0)
        (answered,) = (connection for connection in sockets if connection is not None)
        (calling,) = (connection for connection in called.result() if connection is not None)
        calling.sendall(b"x")
        assert answered.recv(1) == b"x"
        for connection in (answered, calling, *strangers):
            connection.close()


def test_a_rank_that_does_not_come_is_an_error_that_says_what_to_look_at() -> None:
    with _listener() as listener, _listener() as other:
        members = [(0, listener.getsockname()), (3, other.getsockname())]
        with pytest.raises(UserError, match=r"no connection with rank\(s\) 3 within 0\.2 s .*firewall.*--transport "):
            meet(0, listener, members, SECRET, 0.2)
    with pytest.raises(UserError, match=r"no connection with rank\(s\) 0 within 5 s \(.*[Rr]efused"):
        meet(3, other, members, SECRET, 5.0)


def test_the_address_is_that_of_gloos_interface() -> None:
    assert own_address({"HOROVOD_GLOO_IFACE": "lo"}, one_host=False) == "127.0.0.1"
    assert own_address({}, one_host=True) == "127.0.0.1"
    with pytest.raises(UserError, match="HOROVOD_GLOO_IFACE does not name"):
        own_address({}, one_host=False)
    with pytest.raises(UserError, match=r"the network interface nowhere7 \(HOROVOD_GLOO_IFACE\) has no address"):
        own_address({"HOROVOD_GLOO_IFACE": "nowhere7"}, one_host=True)
