"""The members of a job: which ones an elastic launcher lets come and go, and how those that stay meet again."""

from __future__ import annotations

import os
import re
import socket
import threading
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.horovod import HorovodCommunicator
from hvd_dqn.elastic.connections import hang_up, open_sockets
from hvd_dqn.elastic.rendezvous import take_place

_OPERATION = re.compile("Horovod(Allreduce|Allgather|Alltoall|Broadcast)")
_GLOO_TIMEOUT_SECONDS = 30.0
"""Horovod's default."""


class MembersChanged(Exception):
    """The launcher has other hosts for the job; raised on all ranks at the same step."""


class Members(Protocol):
    """Who takes part."""

    name: str
    silence_seconds: float
    """How long a lost host may keep the others waiting before they are told."""

    @property
    def elastic(self) -> bool:
        """Returns whether ranks may come and go."""

    @property
    def changed(self) -> bool:
        """Returns whether this rank was told of other hosts since the ranks met; not equal on all ranks."""

    def lost(self, error: Exception) -> bool:
        """Returns whether an error means that the ranks are no longer the same, and those that stay can go on."""

    def leave(self, error: Exception) -> None:
        """Parts from the ranks, after an error that says that they are no longer the same."""

    def rejoin(self) -> None:
        """Meets the ranks that there are now; a collective of theirs. The ranks' rank and size change."""

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Sends rows to the other ranks; a collective.

        Args:
          rows: uint8 [N, R], those for rank 0 first; R is equal on all ranks.
          counts: rows for each rank; they add up to N.

        Returns:
          uint8 [M, R], the rows for this rank, those of rank 0 first.
        """


class FixedMembers:
    """The members under any other launcher: a lost one ends the job."""

    name = "the only one"
    silence_seconds = 0.0
    elastic = False
    changed = False

    def lost(self, error: Exception) -> bool:
        """Returns that nobody could go on."""
        return False

    def leave(self, error: Exception) -> None:
        """Is never asked for."""
        raise AssertionError("ranks that stay never part")

    def rejoin(self) -> None:
        """Is never asked for."""
        raise AssertionError("ranks that stay never meet again")

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Is never asked for."""
        raise AssertionError("ranks that stay have nothing to deal out")


class ElasticMembers:
    """The members under Horovod's elastic driver.

    Horovod's own wrapper of the training function is not used: it returns as if the job had finished when it does
    not know an error, and its state classes do not work with Keras 3.
    """

    elastic = True

    def __init__(self, communicator: HorovodCommunicator, connections: set[str]) -> None:
        """Lets the driver tell this rank of other hosts.

        Args:
          communicator: the job's.
          connections: the sockets that Horovod has opened.
        """
        from horovod.common.elastic import notification_manager

        self._communicator, self._connections = communicator, connections
        self._told = threading.Event()
        self.name = f"{os.environ.get('HOROVOD_HOSTNAME', socket.gethostname())} (process {os.getpid()})"
        self.silence_seconds = gloo_timeout_seconds()
        notification_manager.init()
        notification_manager.register_listener(self)

    @property
    def changed(self) -> bool:
        """Returns whether the driver has told this rank of other hosts; it tells one rank."""
        return self._told.is_set()

    def on_hosts_updated(self, timestamp: Any, result: Any) -> None:
        """Is called by Horovod's thread."""
        self._told.set()

    def lost(self, error: Exception) -> bool:
        """Returns whether a collective failed, or the ranks agreed to meet others."""
        return isinstance(error, MembersChanged) or is_failed_collective(error)

    def leave(self, error: Exception) -> None:
        """Ends Horovod, and after a lost peer its connections too.

        Horovod leaves them open, and a rank that waits for this one would do so until Gloo's timeout.
        """
        self._communicator.shutdown()
        if is_failed_collective(error):
            hang_up(self._connections)

    def rejoin(self) -> None:
        """Meets the ranks that there are now; waits for those that are starting."""
        self._told.clear()  # what comes from here on may be news
        take_place(again=True, patience_seconds=self.silence_seconds)  # COLLECTIVE
        before = open_sockets()
        self._communicator.start()  # COLLECTIVE
        self._connections = open_sockets() - before

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Sends rows to the other ranks."""
        return self._communicator.exchange(rows, counts)  # COLLECTIVE


def join_elastic() -> tuple[HorovodCommunicator, ElasticMembers]:
    """Joins an elastic job, at its start or later; a collective."""
    take_place(again=False, patience_seconds=gloo_timeout_seconds())  # COLLECTIVE
    before = open_sockets()
    communicator = HorovodCommunicator()  # COLLECTIVE
    return communicator, ElasticMembers(communicator, open_sockets() - before)


def gloo_timeout_seconds() -> float:
    """Returns how long Gloo waits for a peer that says nothing."""
    return float(os.environ.get("HOROVOD_GLOO_TIMEOUT_SECONDS", _GLOO_TIMEOUT_SECONDS))


def is_failed_collective(error: Exception) -> bool:
    """Returns whether an exception is what TensorFlow makes of a Horovod operation that has lost a peer."""
    from horovod.common.exceptions import HorovodInternalError

    if isinstance(error, tf.errors.UnknownError):
        return _OPERATION.search(str(error)) is not None
    return isinstance(error, HorovodInternalError)
