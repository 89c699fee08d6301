"""What the first server of asynchronous workers does for all: it lets them wait, synchronises them, and finds the lost.

A worker that is too far ahead gets its answer later; a collective is answered when all living workers have sent their
parts. A worker is lost if its process has died, or was silent for too long.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from hvd_dqn.distributed.messages import Kind, Message, Messages, PeerLost
from hvd_dqn.learner.ledger import Ledger

_TICK_SECONDS = 1.0
"""Time between two messages to a worker that waits, and between two looks at all workers."""


class Coordinator:
    """Answers reports and collectives. On the other servers it only forgets lost workers."""

    def __init__(
        self,
        messages: Messages,
        others: Sequence[int],
        ledger: Ledger,
        counts: Callable[[], Sequence[float]],
        silence_seconds: float,
        leads: bool,
    ) -> None:
        """Answers nothing yet.

        Args:
          messages: between all ranks.
          others: the other servers.
          ledger: of the job; it changes with `begin`.
          counts: returns the job's progress, as `served_async.Counts` reads it.
          silence_seconds: after which a worker is presumed lost that owes a message; 0 for no limit.
          leads: whether this is the first server.
        """
        self._messages, self._others, self._counts = messages, others, counts
        self.ledger, self._leads = ledger, leads
        self._reports: dict[int, Message] = {}
        self._gathers: dict[int, Message] = {}
        self._members = sorted(ledger.living)  # at the last roll call
        self._unconfirmed = 0
        self._silence_seconds = silence_seconds or math.inf
        self._heard: dict[int, float] = {}  # once the job has begun
        self._ticked = time.monotonic()

    def begin(self, ledger: Ledger) -> None:
        """Takes where the job's counters stand; from here on silent workers are presumed lost."""
        self.ledger = ledger
        self._heard = dict.fromkeys(ledger.living, time.monotonic())

    def hears(self, worker: int) -> bool:
        """Notes that a worker has sent something; returns False if it is presumed lost, and has it exit."""
        if worker not in self.ledger.living:
            self._messages.send(worker, Kind.LOST)
            return False
        if self._heard:
            self._heard[worker] = time.monotonic()
        return True

    def look(self) -> None:
        """Looks for lost workers, and lets those know that wait that all is well.

        Raises:
          PeerLost: if worker 0 is lost.
        """
        now = time.monotonic()
        if not self._leads or now < self._ticked + _TICK_SECONDS:
            return
        self._ticked = now
        for worker in sorted(self.ledger.living):
            waits = worker in self._reports or worker in self._gathers
            silent = not waits and now > self._heard.get(worker, now) + self._silence_seconds
            if silent or self._messages.alive(worker) is False:
                self.lose(worker)
        for worker in {*self._reports, *self._gathers}:  # not those that a loss has released
            self._messages.send(worker, Kind.WAIT)

    def take_report(self, message: Message) -> None:
        """Takes a worker's progress, and answers as soon as it may continue."""
        env_steps, skipped, wants_others, _ = message.header
        self.ledger.report(int(env_steps), int(skipped), bool(wants_others))
        self._reports[message.source] = message
        self.release()

    def release(self) -> None:
        """Answers the workers that need not wait any longer."""
        for worker, message in [*self._reports.items()]:
            permitted = self.ledger.permits(worker)
            if permitted or self.ledger.due or not message.header[3]:
                del self._reports[worker]
                self._messages.send(worker, Kind.ANSWER, (permitted, *self._counts()))

    def take_gather(self, message: Message) -> None:
        """Takes a worker's part of a collective."""
        self._gathers[message.source] = message
        self._pass_on()

    def lose(self, worker: int) -> None:
        """Continues without a worker, on all servers.

        Raises:
          PeerLost: if it is worker 0, without which there is no job.
        """
        if worker == 0:
            raise PeerLost(0)
        if worker not in self.ledger.living:
            return
        self._forget(worker)
        if self._leads:
            print(f"hvd_dqn: worker {worker} is lost; the others continue", file=sys.stderr, flush=True)
            for other in self._others:
                self._messages.send(other, Kind.DROP, (worker,))
            self._unconfirmed += len(self._others)
            self.release()
            self._pass_on()

    def take_drop(self, message: Message) -> None:
        """Forgets a worker and confirms it; or takes the confirmation of another server."""
        if not self._leads:
            self._forget(int(message.header[0]))
            self._messages.send(message.source, Kind.DROP)
            return
        self._unconfirmed -= 1
        self._pass_on()

    def _pass_on(self) -> None:
        """Sends all parts of a collective to all living workers, once all have come."""
        living = sorted(self.ledger.living)
        if self._unconfirmed or any(worker not in self._gathers for worker in living):
            return
        parts = [self._gathers.pop(worker) for worker in living]
        if parts[0].header[0]:  # a roll call
            self._members = living
            self.ledger.synchronise()
        sizes = [len(part.body) for part in parts]
        header = (living != self._members, len(living), *living, *sizes, *self._counts())
        body = np.concatenate([part.body for part in parts])
        for worker in living:
            self._messages.send(worker, Kind.GATHERED, header, body)

    def _forget(self, worker: int) -> None:
        self.ledger.lose(worker)
        self._messages.drop(worker)
        for held in (self._reports, self._gathers):
            held.pop(worker, None)
