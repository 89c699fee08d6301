"""One rank's dealings with Horovod's elastic driver: host changes, leaving after a loss, joining again."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from hvd_dqn.distributed.horovod import HorovodCommunicator
from hvd_dqn.distributed.horovod_elastic import is_failed_collective, listen_for_hosts
from hvd_dqn.elastic.assignment import wait_for_assignment
from hvd_dqn.elastic.sockets import open_sockets, shutdown_sockets

_GLOO_TIMEOUT_SECONDS = 30.0
"""Horovod's default."""


class HostsChanged(Exception):
    """The driver has other hosts for the job; raised on all ranks at the same step."""


class ElasticDriver:
    """The driver as this rank sees it.

    Horovod's own wrapper of the training function is not used: it returns as if the job had finished when it does
    not know an error, and its state classes do not work with Keras 3.
    """

    def __init__(self) -> None:
        """Joins the job, at its start or later; a collective."""
        self.name = f"{os.environ.get('HOROVOD_HOSTNAME', socket.gethostname())} (process {os.getpid()})"
        self.silence_seconds = float(os.environ.get("HOROVOD_GLOO_TIMEOUT_SECONDS", _GLOO_TIMEOUT_SECONDS))
        """How long Gloo waits for a peer that sends nothing: so long may a lost host delay the other ranks."""
        self._notified = threading.Event()
        wait_for_assignment(again=False, timeout_seconds=self.silence_seconds)  # COLLECTIVE
        before = open_sockets()
        self.communicator = HorovodCommunicator()  # COLLECTIVE
        self._sockets = open_sockets() - before
        listen_for_hosts(self)

    def hosts_changed(self) -> bool:
        """Returns whether this rank was notified of other hosts since it joined; differs between ranks."""
        return self._notified.is_set()

    def on_hosts_updated(self, timestamp: Any, result: Any) -> None:
        """Is called by Horovod's thread."""
        self._notified.set()

    def ranks_changed(self, error: Exception) -> bool:
        """Returns whether an error means that the set of ranks changes, and the job continues without the lost ones."""
        return isinstance(error, HostsChanged) or is_failed_collective(error)

    def leave(self, error: Exception) -> None:
        """Shuts Horovod down, and after a lost peer its sockets too.

        Horovod leaves them open, and a rank that waits for data from this one would wait until Gloo's timeout.
        """
        self.communicator.shutdown()
        if is_failed_collective(error):
            shutdown_sockets(self._sockets)

    def rejoin(self) -> None:
        """Joins the job again, with the ranks that there are now; a collective of theirs. Rank and size change."""
        self._notified.clear()  # a notification from here on may be of later hosts
        wait_for_assignment(again=True, timeout_seconds=self.silence_seconds)  # COLLECTIVE
        before = open_sockets()
        self.communicator.start()  # COLLECTIVE
        self._sockets = open_sockets() - before
