"""Sums over TCP connections between ranks (tcp_sum.c), and over hosts with several ranks each (hosts_sum.c)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

import numpy as np

from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.exchanged_vector import ExchangedVector
from hvd_dqn.distributed.shared_file import open_shared
from hvd_dqn.distributed.shared_vectors import SharedExchange, SharedVector
from hvd_dqn.distributed.tcp_connections import Connections
from hvd_dqn.native.library import aligned_zeros


class _TCPExchange(ctypes.Structure):
    """Connections and memory of vectors of one length; twin of the struct in tcp_sum.c."""

    _fields_ = (
        ("sockets", ctypes.c_void_p),
        ("rank", ctypes.c_size_t),
        ("ranks", ctypes.c_size_t),
        ("length", ctypes.c_size_t),
        ("result", ctypes.c_void_p),
        ("received", ctypes.c_void_p),
        ("lost", ctypes.c_int64),
        ("error", ctypes.c_int64),
    )


class _HostsExchange(ctypes.Structure):
    """The exchanges within a host and between them; twin of the struct in hosts_sum.c."""

    _fields_ = (
        ("within", ctypes.c_void_p),
        ("total", ctypes.c_void_p),
        ("between", ctypes.c_void_p),
        ("sum", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
    )


class TCPVector(ExchangedVector):
    """The vectors [N] of connected ranks, and their sum."""

    def __init__(
        self, kernels: ctypes.CDLL, connections: Connections, length: int, result: np.ndarray | None = None
    ) -> None:
        """Takes the memory.

        Args:
          kernels: from `load_kernels`.
          connections: to the other ranks.
          length: N.
          result: where the sum is to lie, float32 [N]; by default in memory of its own.
        """
        self._connections = connections
        result = aligned_zeros(length) if result is None else result.view()
        ranks = len(connections.numbers)
        self._numbers = (ctypes.c_int * ranks)(*connections.numbers)
        self._received = aligned_zeros(kernels.tcp_received_floats(ranks, length))
        self._tcp = _TCPExchange(
            ctypes.addressof(self._numbers),
            connections.place,
            ranks,
            length,
            result.ctypes.data,
            self._received.ctypes.data,
        )
        super().__init__(kernels.tcp_exchange, self._tcp, result, self.failure)

    def failure(self) -> ConnectionError:
        """Returns what happened to the last sum."""
        why = os.strerror(self._tcp.error) if self._tcp.error else "it has hung up"
        lost = self._connections.members[self._tcp.lost]
        return ConnectionError(f"rank {lost} was lost while gradients were summed: {why}")


class HostsVector(ExchangedVector):
    """The vectors [N] of ranks on several hosts, of which some have several, and their sum."""

    def __init__(
        self,
        communicator: Communicator,
        kernels: ctypes.CDLL,
        group: Sequence[int],
        connections: Connections | None,
        length: int,
    ) -> None:
        """Takes the memory; a collective.

        Args:
          communicator: they carry the agreement.
          kernels: from `load_kernels`.
          group: those of this host.
          connections: to one rank of each other host, on the first of a group; on the others none.
          length: N.

        Raises:
          UserError: on all ranks, if the memory is short or is not the same on all of a host.
        """
        self._within = SharedVector(communicator, length, group)  # COLLECTIVE
        memory = open_shared(communicator, kernels.shared_state_bytes(len(group), length + 1, 1), group)  # COLLECTIVE
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        sum_at = kernels.shared_slot(at, len(group), length + 1, 0)
        result = np.frombuffer(memory, np.float32, length, sum_at - at)
        self._memory, self._total = memory, SharedExchange(at, group.index(communicator.rank), len(group), length + 1)
        self._between = None if connections is None else TCPVector(kernels, connections, length, result)
        hosts = _HostsExchange(
            self._within.compiled.context,
            ctypes.addressof(self._total),
            None if self._between is None else self._between.compiled.context,
            sum_at,
            length,
        )
        super().__init__(kernels.hosts_exchange, hosts, result, self.failure)

    def failure(self) -> ConnectionError:
        """Returns what happened to the last sum."""
        if self._between is not None:
            return self._between.failure()
        return ConnectionError("a rank of another host was lost while gradients were summed")
