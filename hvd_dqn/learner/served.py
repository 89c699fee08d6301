"""The learner of a worker whose parameter servers apply the optimizer: it pushes gradients and pulls parameters.

With `--strategy ps-sync` every update is: local vector -> its shards to the servers -> the servers sum all workers'
in the order of ranks and apply the optimizer -> the new parameters back to all workers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.messages import Kind, Message, Messages
from hvd_dqn.learner.gradient import LocalVector, UpdateParts
from hvd_dqn.learner.graph_call import GraphCall
from hvd_dqn.learner.learner import NUM_STATISTICS, Report, StepSettings, Vector, make_report
from hvd_dqn.learner.optimizers import OPTIMIZERS
from hvd_dqn.learner.shard import bounds
from hvd_dqn.transition import Transition


class Servers:
    """A worker's side of the parameter servers."""

    def __init__(self, messages: Messages, ranks: Sequence[int], stop: Callable[[], None] = lambda: None) -> None:
        """Sends nothing yet.

        Args:
          messages: between all ranks.
          ranks: the servers.
          stop: called when a server reports that it was asked to stop.
        """
        self.messages, self.ranks, self._stop = messages, ranks, stop

    @property
    def first_worker(self) -> bool:
        """Returns whether this is worker 0, which configures and loads the servers."""
        return self.messages.rank == 0

    def shards(self, vector: np.ndarray) -> list[np.ndarray]:
        """Returns each server's shard of a vector [P], as views."""
        return [vector[bounds(len(vector), index, len(self.ranks))] for index in range(len(self.ranks))]

    def configure(self, total: int, settings: StepSettings) -> None:
        """Describes P parameters and an update to all servers; worker 0 does."""
        for index, rank in enumerate(self.ranks):
            part = bounds(total, index, len(self.ranks))
            text = json.dumps({"length": part.stop - part.start, "settings": settings._asdict()})
            self.messages.send(rank, Kind.CONFIGURE, (), np.frombuffer(text.encode(), np.uint8))

    def load(self, vectors: Iterable[np.ndarray]) -> None:
        """Sends online parameters and slots, float32 [P] each; worker 0 does."""
        parts = [self.shards(np.ascontiguousarray(vector)) for vector in vectors]
        for index, rank in enumerate(self.ranks):
            self.messages.send(rank, Kind.LOAD, (), np.concatenate([part[index] for part in parts]))

    def push(self, header: Sequence[float], gradient: np.ndarray) -> None:
        """Starts to send the shards of a gradient [P] with the same header."""
        for rank, shard in zip(self.ranks, self.shards(gradient), strict=True):
            self.messages.send(rank, Kind.PUSH, header, shard)

    def answers(self, kind: Kind, into: Sequence[np.ndarray]) -> list[Message]:
        """Receives an answer of each server.

        Args:
          kind: of the answers.
          into: an array per server, into which its body is received if it has the right length.
        """
        buffers = {rank: array.reshape(-1).view(np.uint8) for rank, array in zip(self.ranks, into, strict=True)}
        return [self.messages.receive(rank, kind, buffers=buffers, watched=(*self.ranks, 0)) for rank in self.ranks]

    def slots(self, total: int, count: int) -> tuple[np.ndarray, ...]:
        """Returns the optimizer's `count` slots, float32 [P] each."""
        for rank in self.ranks:
            self.messages.send(rank, Kind.SLOTS)
        whole = np.empty((count, total), np.float32)
        for index, rank in enumerate(self.ranks):
            message = self.messages.receive(rank, Kind.SLOTS, watched=(*self.ranks, 0))
            whole[:, bounds(total, index, len(self.ranks))] = message.floats().reshape(count, -1)
        return tuple(whole)

    def note_stop(self, asked: float) -> None:
        """Passes on that a server was asked to stop."""
        if asked:
            self._stop()


class ServedLearner:
    """Computes gradients; owns the target parameters and a copy of the online parameters, float32 [P]."""

    def __init__(self, parts: UpdateParts, servers: Servers) -> None:
        """Builds the graph of the gradient; worker 0 configures the servers, which apply the optimizer."""
        self.layout, settings = parts.network.layout, parts.settings
        self._settings, self._servers, self._clock = settings, servers, parts.clock
        local = LocalVector(parts)
        vector = tf.TensorSpec([self.layout.total], tf.float32)
        signals = tf.TensorSpec([settings.num_signals], tf.float32)
        signature = [tf.TensorSpec([], tf.int32), vector, vector, signals, *local.batch_signature()]
        self._vector = GraphCall(local, signature, jit_compile=parts.compilation.jit_compile)
        self.step = 0
        self.learning_rate = settings.learning_rate
        self._pulled = parts.network.initial_parameters()
        self.online = tf.constant(self._pulled, tf.float32)  # [P]
        self.target = tf.identity(self.online)  # [P]
        self._unsent: tuple[Vector, ...] | None = tuple(tf.zeros_like(self.online) for _ in self.slot_names)
        """Slots that the servers do not have yet. They are sent with the next update: a thread of another's may use
        MPI while a checkpoint is loaded."""
        if servers.first_worker:
            servers.configure(self.layout.total, settings)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Returns the optimizer's names of the slots."""
        return OPTIMIZERS[self._settings.optimizer].slot_names

    @property
    def slots(self) -> tuple[Vector, ...]:
        """Returns the optimizer's slots, which the servers hold."""
        if self._unsent is not None:
            return self._unsent
        return self._servers.slots(self.layout.total, len(self.slot_names))

    def load(self, online: Vector, target: Vector, slots: Sequence[Vector]) -> None:
        """Takes these vectors."""
        self.online, self.target = tf.convert_to_tensor(online), tf.convert_to_tensor(target)
        self._unsent = tuple(slots)

    def load_target(self, target: Vector) -> None:
        """Takes the target parameters."""
        self.target = tf.convert_to_tensor(target)

    def learn(self, batches: Transition, weights: np.ndarray, signals: np.ndarray) -> Report:
        """Runs K updates; see `Learner`."""
        self._send_state()
        updates, steps, local_finite = len(weights), 0, True
        sums, totals, largest = np.zeros(NUM_STATISTICS), np.zeros(len(signals)), 0.0
        priorities = np.zeros(weights.shape, np.float32)
        marks, finite = [time.perf_counter()], True
        while steps < updates and finite:
            columns = (column[steps] for column in (weights, *batches))
            vector, priorities[steps] = self.local_vector(self.step + 1, signals, columns)
            marks.append(time.perf_counter())
            numbers = self._update(vector)  # COLLECTIVE
            marks.append(time.perf_counter())
            finite = bool(numbers[0])
            totals = numbers[2 + NUM_STATISTICS :]
            if finite:
                steps, self.step = steps + 1, self.step + 1
                largest, sums = max(largest, numbers[1]), sums + numbers[2 : 2 + NUM_STATISTICS]
            else:
                local_finite = is_finite(vector)
        self._clock(("gradient", "allreduce"), marks)
        local_steps = updates if local_finite else updates - 1
        return make_report(local_steps, steps, sums.tolist(), totals.tolist(), priorities, float(largest))

    def local_vector(
        self, number: int, signals: np.ndarray, columns: Iterable[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Computes this rank's part of an update's global vector, and the transitions' priorities [B].

        Args:
          number: of the update, from which its noise is drawn.
          signals: float32 [F].
          columns: weights and columns of one batch, [B, ...] each.
        """
        inputs = (tf.constant(number, tf.int32), self.online, self.target, tf.constant(signals, tf.float32))
        vector, priority = self._vector(*inputs, *(tf.constant(column) for column in columns))
        return vector.numpy(), priority.numpy()

    def _send_state(self) -> None:
        """Sends the servers the state that was loaded, if they do not have it."""
        if self._unsent is not None and self._servers.first_worker:
            self._servers.load([np.array(vector) for vector in (self.online, *self._unsent)])
        self._unsent = None

    def _update(self, vector: np.ndarray) -> np.ndarray:
        """Pushes a vector and pulls the parameters after the update; a collective of the workers.

        Returns:
          float64 [2 + statistics + F]: whether the sum was finite, and so applied; the largest priority; statistics
          and signals.
        """
        total = self.layout.total
        self._servers.push((self.step + 1, self.learning_rate, *vector[total:]), vector[:total])
        answers = self._servers.answers(Kind.PULL, self._servers.shards(self._pulled))
        for answer in answers:
            self._servers.note_stop(answer.header[0])
        numbers = answers[0].header[1:]
        if numbers[0]:
            self.online = tf.constant(self._pulled)
        return numbers


def is_finite(vector: np.ndarray) -> bool:
    """Returns whether a vector and its squared L2 norm are finite in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(vector, vector)))
