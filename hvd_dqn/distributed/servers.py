"""The ranks of a job with parameter servers: the last ones are servers, all others are workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from hvd_dqn.distributed.communicator import Communicator, SingleCommunicator
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.distributed.messages import Messages, own_place
from hvd_dqn.distributed.mpi import Direct, MPICommunicator
from hvd_dqn.distributed.relay import RanksChanged, Relay


def connect(
    launch: Launch, servers: int, leave: Callable[[], None], *, asynchronous: bool = False
) -> tuple[Communicator, Messages]:
    """Connects all ranks by MPI; a collective.

    Args:
      launch: how this process was started.
      servers: how many ranks are servers.
      leave: called when this rank has nothing more to send; on worker 0 it ends the servers.
      asynchronous: whether workers continue when one of them is lost.

    Returns:
      The communicator of this rank's peers (the workers', or a server's own), and the messages between all ranks.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD.Dup()  # COLLECTIVE
    messages = Messages(world, Direct(world).gather_json(own_place()))  # COLLECTIVE
    ranks = range(messages.size)[messages.size - servers :]
    peers = world.Split(int(messages.rank in ranks), messages.rank)  # COLLECTIVE
    if messages.rank in ranks:
        return ServerCommunicator(messages, leave), messages
    if asynchronous:
        return LivingWorkers(launch.local_rank, peers, messages, ranks, leave), messages
    return Workers(launch.local_rank, peers, leave), messages


class Workers(MPICommunicator):
    """The workers: collectives by mpi4py, and no Horovod, as the servers sum the gradients."""

    def __init__(self, local_rank: int, peers: Any, leave: Callable[[], None]) -> None:
        """Takes the workers' communicator; see `connect`."""
        super().__init__(local_rank, peers)
        self.mpi_handles = None
        self._leave = leave

    def start_horovod(self) -> None:
        """Does nothing: no gradient goes through Horovod."""

    def shutdown(self) -> None:
        """Ends the servers, on worker 0."""
        self._leave()


class LivingWorkers(Workers):
    """The workers that live: collectives through a server, which know who was lost."""

    def __init__(
        self, local_rank: int, peers: Any, messages: Messages, servers: range, leave: Callable[[], None]
    ) -> None:
        """Takes all workers as living; see `connect`."""
        super().__init__(local_rank, peers, leave)
        self.relay = Relay(messages, servers, Direct(peers))
        self._sender = self.relay

    def roll_call(self) -> np.ndarray:
        """Numbers the living workers again; a collective. See `Relay.roll_call`."""
        counts = self.relay.roll_call()  # COLLECTIVE
        self.rank, self.size = self.relay.rank, len(self.relay.members)
        return counts

    def barrier(self) -> None:
        """Waits for all living workers, whichever they are."""
        with contextlib.suppress(RanksChanged):
            super().barrier()

    def abort(self, code: int) -> None:
        """Ends this worker; the job continues without it unless it is worker 0."""
        if self.rank == 0:
            super().abort(code)
        os._exit(code)


class ServerCommunicator(SingleCommunicator):
    """A parameter server has no peers for collectives; what it exchanges with workers are messages."""

    controller = "MPI"

    def __init__(self, messages: Messages, leave: Callable[[], None]) -> None:
        """Takes the messages between all ranks; see `connect`."""
        self.rank = messages.rank
        self._messages, self._leave = messages, leave

    def shutdown(self) -> None:
        """Leaves the job."""
        self._leave()

    def abort(self, code: int) -> None:
        """Ends all ranks."""
        self._messages.abort(code)
