"""Messages between single ranks of an MPI job: a header of numbers and a body of bytes, waited for without spinning.

A rank that waits looks for messages at growing intervals and sleeps between, so that it leaves its core to those that
compute. Meanwhile it watches the process that it waits for: MPI itself never reports that one has died.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_BODY = 1
"""The tag of a body; other tags are kinds of headers."""
_SPIN_SECONDS = 2e-4
"""How long a rank looks for a message without sleeping: most answers come within it."""
_SLEEP_SECONDS = (2e-5, 1e-3)
"""The first and the longest sleep between two looks."""
_LOOK_SECONDS = 0.5
"""Time between two looks at the processes that a rank waits for."""

Buffers = dict[int, np.ndarray]


class Kind(IntEnum):
    """The kinds of messages between workers and servers. The first server is the coordinator of asynchronous jobs."""

    CONFIGURE = 2
    """Worker 0 to each server: the shard's length and the settings of an update, as JSON."""
    LOAD = 3
    """Worker 0 to each server: online parameters and slots, and target parameters of asynchronous jobs."""
    PUSH = 4
    """A worker to each server: numbers, the tail of its vector, and a shard of its gradient."""
    PULL = 5
    """A server to a worker: numbers, and its shard of the parameters after the update."""
    SLOTS = 6
    """A worker to each server, which answers with its slots."""
    SQUARE = 7
    """A server to the others: the squared norm of its shard of the gradient."""
    END = 8
    """Worker 0 to each server: the exit code."""
    BEGIN = 9
    """Worker 0 to each server, which answers: where an asynchronous job's counters stand, as JSON."""
    REPORT = 10
    """A worker to the coordinator: what it has collected, and whether it wants to make an update."""
    ANSWER = 11
    """The coordinator to a worker: the job's counters, and whether the worker may make the update."""
    GATHER = 12
    """A worker to the coordinator: its part of a collective."""
    GATHERED = 13
    """The coordinator to a worker: all workers' parts."""
    WAIT = 14
    """The coordinator to a worker that it lets wait: all is well."""
    DROP = 15
    """The coordinator to the other servers, which answer: a worker is lost."""
    LOST = 16
    """A server to a worker that is presumed lost: it must exit."""


class Message(NamedTuple):
    """A message that was received."""

    source: int
    kind: int
    header: np.ndarray  # float64 [H]
    body: np.ndarray  # uint8 [N]

    def floats(self) -> np.ndarray:
        """Returns the body as float32 [N / 4]."""
        return self.body.view(np.float32)


class PeerLost(Exception):
    """The process of a rank that this one waits for has died."""

    def __init__(self, rank: int) -> None:
        """Takes the rank."""
        super().__init__(f"rank {rank} has died")
        self.rank = rank


class Messages:
    """Sends and receives messages on a communicator of its own. One thread at a time may use it."""

    def __init__(self, communicator: Any, places: Sequence[Sequence[Any]]) -> None:
        """Sends nothing yet.

        Args:
          communicator: mpi4py's, over all ranks, used for nothing else.
          places: every rank's `own_place`.
        """
        from mpi4py import MPI

        self._mpi, self._communicator = MPI, communicator
        self.rank: int = communicator.Get_rank()
        self.size: int = communicator.Get_size()
        self._places = places
        self._here = self._places[self.rank][0]
        self._sending: list[tuple[Any, int, tuple[np.ndarray, ...]]] = []
        self._looked_at = time.monotonic()

    def send(self, to: int, kind: int, header: Sequence[float] = (), body: np.ndarray | None = None) -> None:
        """Starts to send a message. The body must not be changed before its receiver has answered.

        Args:
          to: the receiving rank.
          kind: of the message, at least FIRST_KIND.
          header: numbers, exact in float64.
          body: any contiguous array; None for an empty one.
        """
        content = np.empty(0, np.uint8) if body is None else body.reshape(-1).view(np.uint8)
        numbers = np.array([len(content), *header], np.float64)
        requests = [self._communicator.Isend(numbers, to, kind)]
        if len(content):
            requests.append(self._communicator.Isend(content, to, _BODY))
        self._sending += [(request, to, (numbers, content)) for request in requests]

    def receive(
        self,
        source: int | None = None,
        kind: int | None = None,
        *,
        buffers: Buffers | None = None,
        idle: Callable[[], None] = lambda: None,
        watched: Iterable[int] = (),
    ) -> Message:
        """Returns the next message; sleeps while none comes.

        Args:
          source: the rank that it must come from; None for any.
          kind: its kind; None for any.
          buffers: bodies are received into the buffer of their source where it has the right length, and put there
            otherwise. Without, each body gets memory of its own.
          idle: called between two looks for a message; may raise.
          watched: ranks without which no message can come.

        Raises:
          PeerLost: if a watched rank of this host has died, or the sender before its body came.
        """
        began, pause = time.monotonic(), _SLEEP_SECONDS[0]
        while (message := self.poll(source, kind, buffers)) is None:
            idle()
            now = time.monotonic()
            self._look(watched, now)
            if self._sending or now < began + _SPIN_SECONDS:
                os.sched_yield()
                continue
            time.sleep(pause)
            pause = min(2 * pause, _SLEEP_SECONDS[1])
        return message

    def poll(
        self, source: int | None = None, kind: int | None = None, buffers: Buffers | None = None
    ) -> Message | None:
        """Returns a message if one has come; see `receive`."""
        self._sending = [sending for sending in self._sending if not sending[0].Test()]
        status = self._mpi.Status()
        wanted = self._mpi.ANY_SOURCE if source is None else source
        if not self._communicator.Iprobe(wanted, self._mpi.ANY_TAG if kind is None else kind, status):
            return None
        sender, tag = status.Get_source(), status.Get_tag()
        numbers = np.empty(status.Get_count(self._mpi.DOUBLE), np.float64)
        self._communicator.Recv(numbers, sender, tag)
        return Message(sender, tag, numbers[1:], self._body(sender, int(numbers[0]), buffers))

    def drop(self, rank: int) -> None:
        """Forgets what a lost rank was still to receive."""
        self._sending = [sending for sending in self._sending if sending[1] != rank]

    def alive(self, rank: int) -> bool | None:
        """Returns whether a rank's process lives; None if it is on another host."""
        host, pid = self._places[rank]
        if host != self._here:
            return None
        try:
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            return False
        return state not in (b"Z", b"X")

    def flush(self, seconds: float) -> None:
        """Waits until all messages are sent, but not longer than this."""
        deadline = time.monotonic() + seconds
        while self._sending and time.monotonic() < deadline:
            self._sending = [sending for sending in self._sending if not sending[0].Test()]
            time.sleep(_SLEEP_SECONDS[0])

    def abort(self, code: int) -> None:
        """Ends all ranks at once."""
        self._mpi.COMM_WORLD.Abort(code)
        os._exit(code)

    def _body(self, sender: int, length: int, buffers: Buffers | None) -> np.ndarray:
        buffer = None if buffers is None else buffers.get(sender)
        if buffer is None or len(buffer) != length:
            buffer = np.empty(length, np.uint8)
            if buffers is not None:
                buffers[sender] = buffer
        if length:
            request = self._communicator.Irecv(buffer, sender, _BODY)
            try:
                while not request.Test():
                    self._look((sender,), time.monotonic())
                    os.sched_yield()
            except PeerLost:
                request.Cancel()
                raise
        return buffer

    def _look(self, watched: Iterable[int], now: float) -> None:
        if now < self._looked_at + _LOOK_SECONDS:
            return
        self._looked_at = now
        for rank in watched:
            if self.alive(rank) is False:
                raise PeerLost(rank)


def own_place() -> tuple[str, int]:
    """Returns where this process is: its host with the name space of its process ids, and its id there."""
    return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}", os.getpid()
