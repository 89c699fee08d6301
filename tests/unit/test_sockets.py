"""Laws of shutting sockets down: the peer stops waiting, and other sockets stay open."""

from __future__ import annotations

import socket

import pytest

from hvd_dqn.elastic.sockets import open_sockets, shutdown_sockets


def test_the_peer_sees_the_end_at_once_and_other_connections_stay() -> None:
    kept = socket.socketpair()
    before = open_sockets()
    ours, theirs = socket.socketpair()
    opened = open_sockets() - before
    assert len(opened) == 2
    ours.settimeout(5.0)
    shutdown_sockets(opened)
    assert theirs.recv(1) == b""
    assert ours.fileno() >= 0
    kept[0].sendall(b"x")
    assert kept[1].recv(1) == b"x"
    for end in (ours, theirs, *kept):
        end.close()


def test_a_socket_that_is_closed_already_is_passed_over_though_its_number_is_taken_again() -> None:
    before = open_sockets()
    first = socket.socketpair()
    opened = open_sockets() - before
    for end in first:
        end.close()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname(), 5.0) as client:
            served, _ = listener.accept()
            shutdown_sockets(opened)
            client.sendall(b"x")
            assert served.recv(1) == b"x"
            served.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        first[0].send(b"x")
