"""The ranks of a job with parameter servers: the last ones are servers, all others are workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hvd_dqn.distributed.communicator import Communicator, SingleCommunicator
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.distributed.messages import Messages, own_place
from hvd_dqn.distributed.mpi import Direct, MPICommunicator


def connect(launch: Launch, servers: int, end: Callable[[Messages], None]) -> tuple[Communicator, Messages]:
    """Connects all ranks by MPI; a collective.

    Args:
      launch: how this process was started.
      servers: how many ranks are servers.
      end: ends the servers; worker 0 calls it when all workers are done.

    Returns:
      The communicator of this rank's peers (the workers', or a server's own), and the messages between all ranks.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD.Dup()  # COLLECTIVE
    messages = Messages(world, Direct(world).gather_json(own_place()))  # COLLECTIVE
    serves = messages.rank >= messages.size - servers
    peers = world.Split(int(serves), messages.rank)  # COLLECTIVE
    if serves:
        return ServerCommunicator(messages), messages
    return WorkerCommunicator(launch.local_rank, peers, messages, end), messages


class WorkerCommunicator(MPICommunicator):
    """The workers: collectives by mpi4py, and no Horovod, as the servers sum the gradients."""

    def __init__(self, local_rank: int, peers: Any, messages: Messages, end: Callable[[Messages], None]) -> None:
        """Takes the workers' communicator; see `connect`."""
        super().__init__(local_rank, peers)
        self.mpi_handles = None
        self._messages, self._end = messages, end

    def start_horovod(self) -> None:
        """Does nothing: no gradient goes through Horovod."""

    def shutdown(self) -> None:
        """Ends the servers, on worker 0."""
        if self.rank == 0:
            self._end(self._messages)


class ServerCommunicator(SingleCommunicator):
    """A parameter server has no peers for collectives; what it exchanges with workers are messages."""

    controller = "MPI"

    def __init__(self, messages: Messages) -> None:
        """Takes the messages between all ranks."""
        self.rank = messages.rank
        self._messages = messages

    def abort(self, code: int) -> None:
        """Ends all ranks."""
        self._messages.abort(code)
