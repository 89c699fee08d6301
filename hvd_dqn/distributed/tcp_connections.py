"""Connects ranks with one another by TCP.

Who comes to a rank's port must know a secret that rank 0 has made for this job; the port is closed once all have come.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Iterable, Mapping, Sequence

from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.errors import UserError

_SECONDS = 30.0
"""Until all must have come."""
_GREETING_SECONDS = 5.0
"""Until somebody who has come must have said who it is."""
_RANK_DIGITS = 8


class Connections:
    """This rank's connections with the other members, until they are closed."""

    def __init__(self, members: Sequence[int], rank: int, sockets: list[socket.socket | None]) -> None:
        """Takes one socket for each member, but for the rank itself."""
        self.members, self.place = members, members.index(rank)
        self.numbers = [-1 if connection is None else connection.fileno() for connection in sockets]
        """File descriptors, in the order of members."""
        self._sockets = sockets

    def close(self) -> None:
        """Hangs up."""
        _close(self._sockets)


def connect(
    communicator: Communicator, members: Sequence[int], one_host: bool, seconds: float = _SECONDS
) -> Connections | None:
    """Connects some of the ranks; a collective of all.

    Args:
      communicator: they carry the addresses.
      members: those that are connected; another rank gets None.
      one_host: whether all ranks are on one.
      seconds: until all must have come.

    Raises:
      UserError: on all ranks, if two of them do not reach each other.
    """
    secret = on_root(communicator, lambda: secrets.token_hex(32))  # COLLECTIVE
    is_member = communicator.rank in members

    def listen() -> socket.socket | None:
        return _listen(own_address(os.environ, one_host), len(members)) if is_member else None

    listener = raise_on_any_rank(communicator, listen)  # COLLECTIVE
    with listener or contextlib.nullcontext():
        places = communicator.gather_json(listener.getsockname()[:2] if is_member else None)  # COLLECTIVE

        def meet_others() -> list[socket.socket | None]:
            asked = [(member, places[member]) for member in members]
            return meet(communicator.rank, listener, asked, secret.encode(), seconds) if is_member else []

        sockets = raise_on_any_rank(communicator, meet_others)  # COLLECTIVE
    return Connections(members, communicator.rank, sockets) if is_member else None


def own_address(environ: Mapping[str, str], one_host: bool) -> str:
    """Returns the address at which the other ranks reach this one: of the interface that Gloo was told to take.

    Raises:
      UserError: if there is none.
    """
    name = environ.get("HOROVOD_GLOO_IFACE", "lo" if one_host else "")
    if not name:
        raise UserError("HOROVOD_GLOO_IFACE does not name the network interface between the hosts")
    import psutil

    families = [known.address for known in psutil.net_if_addrs().get(name, [])]
    for text in families:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(text)
            if not address.is_link_local:
                return str(address)
    raise UserError(f"the network interface {name} (HOROVOD_GLOO_IFACE) has no address that other hosts know")


def _listen(address: str, ranks: int) -> socket.socket:
    try:
        return socket.create_server((address, 0), family=_family(address), backlog=ranks)
    except OSError as error:
        raise UserError(f"no port for the other ranks at {address}: {error.strerror}") from error


def meet(
    rank: int, listener: socket.socket, members: Sequence[tuple[int, tuple[str, int]]], secret: bytes, seconds: float
) -> list[socket.socket | None]:
    """Calls the members before this one and waits for those after it.

    Args:
      rank: this one, a member.
      listener: at its own place.
      members: ranks and their addresses and ports.
      secret: which all members know.
      seconds: until all must have come.

    Returns:
      A connection for each member; none for this one.

    Raises:
      UserError: if one does not answer or does not come.
    """
    deadline = time.monotonic() + seconds
    found: dict[int, socket.socket] = {}
    before = [member for member, _ in members].index(rank)
    try:
        for other, place in members[:before]:
            found[other] = _call(rank, place, secret, deadline)
        while len(found) < len(members) - 1:
            came, connection = _take(listener, secret, deadline)
            if connection is not None:
                found[came] = connection
    except OSError as error:
        _close(found.values())
        missing = [str(other) for other, _ in members if other not in found and other != rank]
        raise UserError(
            f"no connection with rank(s) {', '.join(missing)} within {seconds:g} s ({error}): does a firewall close "
            "the ports between the hosts? HOROVOD_GLOO_IFACE or horovodrun's --network-interfaces names another "
            "network, --transport horovod goes without these connections"
        ) from error
    return [found.get(member) for member, _ in members]


def _call(rank: int, place: tuple[str, int], secret: bytes, deadline: float) -> socket.socket:
    connection = socket.create_connection((place[0], place[1]), timeout=_left(deadline))
    connection.sendall(secret + f"{rank:0{_RANK_DIGITS}}".encode())
    return _ready(connection)


def _take(listener: socket.socket, secret: bytes, deadline: float) -> tuple[int, socket.socket | None]:
    """Returns who has come, and the connection; none if it does not know the secret."""
    listener.settimeout(_left(deadline))
    connection, _ = listener.accept()
    connection.settimeout(_GREETING_SECONDS)
    greeting = b""
    size = len(secret) + _RANK_DIGITS
    with contextlib.suppress(OSError):
        while len(greeting) < size and (part := connection.recv(size - len(greeting))):
            greeting += part
    if not hmac.compare_digest(greeting[: len(secret)], secret) or len(greeting) < size:
        connection.close()
        return -1, None
    return int(greeting[len(secret) :]), _ready(connection)


def _ready(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


def _close(sockets: Iterable[socket.socket | None]) -> None:
    for connection in sockets:
        if connection is not None:
            connection.close()
