"""The learner of a worker that waits for no other: `--strategy ps-async`.

An update is: this worker's own gradient -> its shards to the servers, which apply them as they come -> the new
parameters, with all updates that other workers have made meanwhile.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.messages import Kind, Message, Messages
from hvd_dqn.distributed.relay import Relay
from hvd_dqn.learner.learner import NUM_STATISTICS, Report, make_report
from hvd_dqn.learner.served import ServedLearner, Servers, is_finite
from hvd_dqn.learner.shard import bounds
from hvd_dqn.transition import Transition

_SMALLEST_WEIGHT = 1e-30


class Push(NamedTuple):
    """What a worker sends with a gradient; with 0 rows it only asks for the parameters."""

    sequence: int  # of this worker's gradients, 1 for the first
    rate: float  # the learning rate of a whole global batch
    rows: int  # of the batch whose mean gradient this is
    square: float  # squared L2 norm of the whole gradient
    priority: float  # the largest of the batch
    statistics: tuple[float, ...]  # means over the batch
    versions: tuple[int, ...]  # for each server: of its parameters, and of its target parameters, as used here

    def header(self) -> list[float]:
        """Returns the numbers of the message."""
        return [*self[:5], *self.statistics, *self.versions]

    @classmethod
    def read(cls, header: np.ndarray) -> Push:
        """Returns what `header` wrote."""
        sequence, rate, rows, square, priority, *rest = header.tolist()
        versions = tuple(map(int, rest[NUM_STATISTICS:]))
        return cls(int(sequence), rate, int(rows), square, priority, tuple(rest[:NUM_STATISTICS]), versions)


class Counts(NamedTuple):
    """The job's progress as the coordinator counts it."""

    stop_asked: float
    announced: float  # number of the latest synchronisation of all workers
    env_steps: float
    rows: float  # of the batches whose gradients were applied
    skipped: float
    target_updates: float
    gradients: float  # that were applied since the job began
    staleness: float  # summed over these
    largest_staleness: float
    statistics: tuple[float, ...]  # sums of rows times loss, priority, Q
    priority: float  # the largest so far

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Counts:
        """Returns the counts at the end of a message's header."""
        return cls._make([*numbers[:9], tuple(numbers[9:-1]), numbers[-1]])


class AsynchronousServers(Servers):
    """A worker's side of servers that apply each gradient when it comes."""

    def __init__(self, messages: Messages, ranks: Sequence[int], relay: Relay, stop: Any) -> None:
        """Sends nothing yet; see `Servers`."""
        super().__init__(messages, ranks, stop)
        self._relay = relay

    def begin(self, described: dict[str, Any]) -> None:
        """Sends where the job's counters stand, after the parameters, and waits until all servers have both."""
        text = np.frombuffer(json.dumps(described).encode(), np.uint8)
        for rank in self.ranks:
            self.messages.send(rank, Kind.BEGIN, (), text)
        for rank in self.ranks:
            self._relay.receive(rank)

    def report(self, env_steps: int, skipped: int, wants_others: bool, wants_update: bool) -> tuple[bool, Counts]:
        """Reports progress; waits while this worker is too far ahead for an update that it wants.

        Args:
          env_steps: of this worker since its last report.
          skipped: its gradients since then that were not finite.
          wants_others: whether it has anything that all workers must know.
          wants_update: whether it wants to make an update.

        Returns:
          Whether it may make the update, and the job's progress.
        """
        message = self._relay.ask(Kind.REPORT, (env_steps, skipped, wants_others, wants_update))
        permitted, *numbers = message.header.tolist()
        counts = Counts.of(numbers)
        self.note_stop(counts.stop_asked)
        return bool(permitted), counts

    def pull(self) -> list[Message]:
        """Receives each server's answer to a push."""
        return [self._relay.receive(rank) for rank in self.ranks]


class AsynchronousLearner(ServedLearner):
    """Pushes this worker's own gradients. The servers copy the online to the target parameters."""

    _servers: AsynchronousServers
    _sequence = 0
    _versions: tuple[int, ...] = ()

    def begin(self, described: dict[str, Any]) -> None:
        """Sends parameters and counters to the servers, on worker 0; a barrier must follow."""
        self._pulled = np.array(self.online)
        self._pulled_target = np.array(self.target)
        self._sequence, self._versions = 0, (0, described["counters"]["target_updates"]) * len(self._servers.ranks)
        if self._servers.first_worker and self._unsent is not None:
            self._servers.load([np.array(vector) for vector in (self.online, *self._unsent, self.target)])
            self._servers.begin(described)
        self._unsent = None

    def learn(self, batches: Transition, weights: np.ndarray, signals: np.ndarray) -> Report:
        """Runs one update alone; no collective. K is 1, and the signals come back as they are.

        The gradient is the mean over this worker's rows, with weights divided by the largest of its own batch.
        """
        started, settings, total = time.perf_counter(), self._settings, self.layout.total
        columns = [column[0] for column in (weights, *batches)]
        number = 1 + self.step + settings.size * self._sequence + settings.rank  # of noise of its own
        vector, priority = self.local_vector(number, signals, columns)
        own = settings.global_batch_size / settings.batch_size_per_rank  # the vector is a part of the global mean
        weight = max(float(weights.max()), _SMALLEST_WEIGHT) if settings.weighted else 1.0
        gradient = vector[:total] * np.float32(own / weight)
        means = own / np.array([weight, 1.0, 1.0]) * vector[total : total + NUM_STATISTICS]
        largest = float(priority.max()) if settings.weighted else 0.0
        computed, finite = time.perf_counter(), is_finite(gradient)
        if finite:
            self._sequence += 1
            square, statistics = float(np.dot(gradient, gradient)), tuple(means.tolist())
            rows, rate = settings.batch_size_per_rank, self.learning_rate
            self._exchange(Push(self._sequence, rate, rows, square, largest, statistics, self._versions), gradient)
        self._clock(("gradient", "allreduce"), (started, computed, time.perf_counter()))
        sums = means.tolist() if finite else [0.0] * NUM_STATISTICS
        return make_report(float(finite), float(finite), sums, signals.tolist(), priority[None], largest)

    def refresh(self) -> None:
        """Pulls the parameters as they are now; no collective."""
        push = Push(0, 0.0, 0, 0.0, 0.0, (0.0,) * NUM_STATISTICS, self._versions)
        self._exchange(push, np.empty(0, np.float32))

    def _exchange(self, push: Push, gradient: np.ndarray) -> None:
        """Pushes a gradient and pulls the parameters."""
        self._servers.push(push.header(), gradient)
        total, count = self.layout.total, len(self._servers.ranks)
        versions = list(self._versions)
        for index, answer in enumerate(self._servers.pull()):
            part, vectors = bounds(total, index, count), answer.floats()
            length = part.stop - part.start
            self._pulled[part] = vectors[:length]
            if len(vectors) > length:
                self._pulled_target[part] = vectors[length:]
            self._servers.note_stop(answer.header[0])
            versions[2 * index : 2 * index + 2] = map(int, answer.header[1:3])
        if versions[1::2] != list(self._versions[1::2]) or push.rows == 0:
            self.target = tf.constant(self._pulled_target)
        self._versions = tuple(versions)
        self.online = tf.constant(self._pulled)
