"""Finds this process's open sockets, and shuts down sockets that a library leaves open."""

from __future__ import annotations

import contextlib
import os
import socket

_FOLDER = "/proc/self/fd"


def open_sockets() -> set[str]:
    """Returns the kernel's names of all sockets that are open now, such as "socket:[4711]"."""
    return set(_by_name())


def shutdown_sockets(names: set[str]) -> None:
    """Shuts the connections of these sockets down, so that peers stop waiting; their owner still has to close them."""
    for name, number in _by_name().items():
        if name in names:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                connection.shutdown(socket.SHUT_RDWR)


def _by_name() -> dict[str, int]:
    """Returns the open sockets' file descriptors by name."""
    found = {}
    for entry in os.listdir(_FOLDER):
        with contextlib.suppress(OSError):
            name = os.readlink(f"{_FOLDER}/{entry}")
            if name.startswith("socket:"):
                found[name] = int(entry)
    return found
