"""Ranks on several hosts that sum over TCP connections of their own: no other thread's latency.

Horovod over Gloo agrees across the network on which tensors are ready, then goes around a ring, in a thread of its own.
This job has one vector in flight, at the same place on all ranks: it needs one way across the network, or two.
"""

from __future__ import annotations

import contextlib

from hvd_dqn.distributed.agreement import raise_on_any_rank
from hvd_dqn.distributed.carried_ranks import CarriedCommunicator
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.tcp_connections import Connections, connect
from hvd_dqn.distributed.tcp_vectors import HostsVector, TCPVector
from hvd_dqn.errors import UserError
from hvd_dqn.native.library import load_kernels


class TCPCommunicator(CarriedCommunicator[TCPVector | HostsVector]):
    """Ranks on any hosts: float32 vectors over TCP, between one rank of each host where some have several."""

    def __init__(self, carrier: Communicator, host: str, required: bool) -> None:
        """Takes over a job's ranks, which are connected when they first sum; see `CarriedCommunicator`.

        Args:
          carrier: these ranks over MPI or Horovod.
          host: the name of this rank's host, which no other host has.
          required: whether connections that cannot be had are an error.
        """
        super().__init__(carrier, "TCP", required)
        self._host = host
        self._connections: dict[tuple[int, ...], Connections | UserError | None] = {}

    def shutdown(self) -> None:
        """Leaves the job."""
        for connections in self._connections.values():
            if isinstance(connections, Connections):
                connections.close()
        super().shutdown()

    def _make_exchange(self, length: int) -> TCPVector | HostsVector:
        kernels = raise_on_any_rank(self._carrier, load_kernels)  # COLLECTIVE
        hosts = self._carrier.gather_json(self._host)  # COLLECTIVE
        firsts = tuple(hosts.index(host) for host in dict.fromkeys(hosts))
        if 1 < len(firsts) < self.size:
            group = [rank for rank, host in enumerate(hosts) if host == self._host]
            with contextlib.suppress(UserError):  # too little shared memory: each rank for itself, then
                connections = self._connect(firsts, one_host=False)  # COLLECTIVE
                return HostsVector(self._carrier, kernels, group, connections, length)  # COLLECTIVE
        connections = self._connect(tuple(range(self.size)), one_host=len(firsts) == 1)  # COLLECTIVE
        assert connections is not None, "every rank is a member"
        return TCPVector(kernels, connections, length)

    def _connect(self, members: tuple[int, ...], one_host: bool) -> Connections | None:
        """Returns the members' connections, made once; a collective.

        Raises:
          UserError: on all ranks, now and later.
        """
        if members not in self._connections:
            try:
                self._connections[members] = connect(self._carrier, members, one_host)  # COLLECTIVE
            except UserError as error:
                self._connections[members] = error
        connections = self._connections[members]
        if isinstance(connections, UserError):
            raise connections
        return connections
