"""Collectives of asynchronous workers: the first parameter server passes every part on to all living workers.

A collective of MPI would wait without limit for a worker that has died. Here the others get a `RanksChanged`, and
continue after the next roll call, which numbers the living workers again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.communicator import JSONCollectives, Values
from hvd_dqn.distributed.messages import Kind, Message, Messages
from hvd_dqn.distributed.mpi import Direct
from hvd_dqn.errors import EXIT_FAILED


class RanksChanged(Exception):
    """A worker was lost since the last roll call: raised by a collective on all living workers."""


class Relay(JSONCollectives):
    """Collectives through the coordinator, among the workers that live."""

    def __init__(self, messages: Messages, servers: Sequence[int], direct: Direct) -> None:
        """Takes all workers as living.

        Args:
          messages: between all ranks.
          servers: their ranks; the first one is the coordinator.
          direct: MPI's collectives among all workers, for what runs before any worker can be lost.
        """
        self._messages, self._servers, self._direct = messages, servers, direct
        self.members = [rank for rank in range(messages.size) if rank not in servers]
        self.rank = messages.rank
        self.while_waiting: Callable[[], None] = lambda: None
        """Called now and then while this worker waits for others and all is well."""

    def ask(self, kind: Kind, header: Sequence[float], body: np.ndarray | None = None) -> Message:
        """Sends the coordinator a message and waits for the answer, however long the other workers take."""
        self._messages.send(self._servers[0], kind, header, body)
        while (message := self.receive(self._servers[0])).kind == Kind.WAIT:
            self.while_waiting()
        return message

    def receive(self, server: int) -> Message:
        """Returns the next message of a server; ends this process if the job continues without it."""
        message = self._messages.receive(server, watched=(*self._servers, 0))
        if message.kind == Kind.LOST:
            print(
                f"hvd_dqn: worker {self._messages.rank} was silent for too long, and the job continues without it: "
                "it exits",
                file=sys.stderr,
                flush=True,
            )
            os._exit(EXIT_FAILED)
        return message

    def roll_call(self) -> np.ndarray:
        """Waits for all living workers and numbers them again; a collective.

        Returns:
          float64: the job's progress as the coordinator counts it, equal on all workers.
        """
        message = self.ask(Kind.GATHER, (1.0,))
        count = int(message.header[1])
        self.members = [int(member) for member in message.header[2 : 2 + count]]
        self.rank = self.members.index(self._messages.rank)
        return message.header[2 + 2 * count :]

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns every living worker's uint8 array [N_r], in the order of ranks.

        Raises:
          RanksChanged: on all living workers, if one was lost since the last roll call.
        """
        message = self.ask(Kind.GATHER, (0.0,), values)
        if message.header[0]:
            raise RanksChanged
        count = int(message.header[1])
        sizes = message.header[2 + count : 2 + 2 * count].astype(np.int64)
        return np.split(message.body, np.cumsum(sizes)[:-1])

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the living workers, in the order of ranks."""
        parts = self.gather(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        return np.sum([part.view(values.dtype).reshape(values.shape) for part in parts], axis=0, dtype=values.dtype)

    def broadcast(self, values: Values) -> Values:
        """Sends rank 0's tensor or array to all."""
        own = np.array(values, order="C")
        sent = own.reshape(-1).view(np.uint8) if self.rank == 0 else np.empty(0, np.uint8)
        received = self.gather(sent)[0].view(own.dtype).reshape(own.shape)
        return received.copy() if isinstance(values, np.ndarray) else tf.convert_to_tensor(received)

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Sends rows as `Direct.exchange` does; once a worker is lost, all living ones receive all rows."""
        size = len(self.members)
        if size == self._messages.size - len(self._servers):
            return self._direct.exchange(rows, counts)
        own, width = np.ascontiguousarray(rows[: sum(counts)]).reshape(-1).view(np.uint8), rows.shape[1]
        received = []
        for part in self.gather(np.concatenate([np.array(counts, np.int64).view(np.uint8), own])):
            ends = np.cumsum(part[: 8 * size].view(np.int64))
            received.append(np.split(part[8 * size :].reshape(-1, width), ends[:-1])[self.rank])
        return np.concatenate(received)

    def barrier(self) -> None:
        """Waits for all living workers."""
        self.gather(np.empty(0, np.uint8))
