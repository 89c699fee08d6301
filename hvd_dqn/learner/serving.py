"""A parameter server: what it does with the workers' messages until worker 0 ends the job."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hvd_dqn.distributed.messages import Buffers, Kind, Message, Messages, PeerLost
from hvd_dqn.learner.learner import StepSettings
from hvd_dqn.learner.shard import Shard, Sum

_SECONDS_TO_FLUSH = 5.0
"""For the last messages to the workers, once the job is over."""


class ServerParts(NamedTuple):
    """What a server is built from."""

    messages: Messages  # between all ranks; the workers are the first ones, the servers all others
    workers: int  # W
    stop_asked: Callable[[], bool]  # returns whether this process was asked to stop, which the workers then learn
    beat: Callable[[], None] = lambda: None  # called now and then while the server is well


class Server:
    """Holds a shard, sums the workers' gradients in the order of ranks and applies them: `--strategy ps-sync`."""

    def __init__(self, parts: ServerParts) -> None:
        """Serves nothing yet."""
        self._messages, self._workers, self._stop_asked, self._beat = parts
        self._others = [rank for rank in range(self._workers, self._messages.size) if rank != self._messages.rank]
        self._shard: Shard | None = None
        self._pushes: dict[int, Message] = {}
        self._squares: dict[int, float] = {}
        self._buffers: Buffers = {}
        self._total = np.empty(0, np.float32)
        self._handlers: dict[int, Callable[[Message], None]] = {
            Kind.CONFIGURE: self._configure,
            Kind.LOAD: self._load,
            Kind.PUSH: self._push,
            Kind.SLOTS: self._send_slots,
            Kind.SQUARE: self._note_square,
        }

    def serve(self) -> int:
        """Serves until worker 0 ends the job, and returns the exit code.

        Raises:
          PeerLost: if a process without which the job cannot continue has died.
        """
        while True:
            try:
                message = self._messages.receive(buffers=self._buffers, idle=self._idle, watched=self._watched())
            except PeerLost as lost:
                self._continue_without(lost)
                continue
            if message.kind == Kind.END:
                self._messages.flush(_SECONDS_TO_FLUSH)
                return int(message.header[0])
            self._handle(message)

    def _continue_without(self, lost: PeerLost) -> None:
        """Raises: no synchronous update is made without all workers and servers."""
        raise lost

    def _handle(self, message: Message) -> None:
        self._handlers[message.kind](message)

    def _idle(self) -> None:
        """Runs between two looks for a message."""
        self._beat()

    def _watched(self) -> Sequence[int]:
        """Returns the ranks without which the job cannot continue."""
        return [*range(self._workers), *self._others]

    def _configure(self, message: Message) -> None:
        described = json.loads(message.body.tobytes())
        self._shard = Shard(described["length"], StepSettings(**described["settings"]))
        self._total = np.empty(described["length"], np.float32)

    @property
    def shard(self) -> Shard:
        """Returns the shard, which worker 0 has configured before anything else."""
        assert self._shard is not None
        return self._shard

    def _load(self, message: Message) -> None:
        self.shard.load(message.floats())

    def _send_slots(self, message: Message) -> None:
        self._messages.send(
            message.source, Kind.SLOTS, (), np.concatenate([np.empty(0, np.float32), *self.shard.slots])
        )

    def _push(self, message: Message) -> None:
        """Takes a worker's push; with the last one, applies the update and answers all."""
        self._pushes[message.source] = message
        if len(self._pushes) < self._workers:
            return
        pushes = [self._pushes[worker] for worker in range(self._workers)]
        self._pushes = {}
        number, rate = pushes[0].header[:2]
        tail = _sum([push.header[2:].astype(np.float32) for push in pushes], np.empty(len(pushes[0].header) - 2, "f4"))
        total = self.shard.read(_sum([push.floats() for push in pushes], self._total), tail)
        square = self._whole_square(total)
        finite = bool(np.isfinite(np.float32(square + total.tail_square)))
        if finite:
            self.shard.apply(int(number), float(rate), total.gradient, square)
        numbers = (self._stop_asked(), finite, total.priority, *total.statistics, *total.signals)
        online = self.shard.online.numpy() if finite else None
        for worker in range(self._workers):
            self._messages.send(worker, Kind.PULL, numbers, online)

    def _whole_square(self, own: Sum) -> float:
        """Returns the squared norm of the whole gradient: the shards' sums, added in the order of servers."""
        for rank in self._others:
            self._messages.send(rank, Kind.SQUARE, (own.square,))
        for rank in self._others:
            if rank not in self._squares:
                self._note_square(self._messages.receive(rank, Kind.SQUARE, watched=self._watched()))
        parts = self._squares | {self._messages.rank: own.square}
        self._squares = {}
        return float(np.sum(np.array([parts[rank] for rank in sorted(parts)], np.float32), dtype=np.float32))

    def _note_square(self, message: Message) -> None:
        """Keeps another server's part, which may come before this one has all pushes of the same update."""
        self._squares[message.source] = float(message.header[0])


def _sum(parts: Sequence[np.ndarray], out: np.ndarray) -> np.ndarray:
    """Sums arrays one after the other, in their order, into `out`."""
    np.copyto(out, parts[0])
    for part in parts[1:]:
        np.add(out, part, out=out)
    return out
