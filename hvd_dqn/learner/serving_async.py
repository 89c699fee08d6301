"""A parameter server of workers that do not wait for one another: `--strategy ps-async`.

Every server applies each gradient as it arrives. The first server is the workers' coordinator, too.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tensorflow as tf

from hvd_dqn.counters import Counters
from hvd_dqn.distributed.messages import Kind, Message, PeerLost
from hvd_dqn.learner.coordinator import Coordinator
from hvd_dqn.learner.learner import NUM_STATISTICS
from hvd_dqn.learner.ledger import Ledger, Rules, Staleness
from hvd_dqn.learner.served_async import Push
from hvd_dqn.learner.serving import Server, ServerParts


class AsynchronousServer(Server):
    """Applies each worker's gradient when it arrives."""

    def __init__(self, parts: ServerParts, silence_seconds: float = 0.0) -> None:
        """Serves nothing yet.

        Args:
          parts: of a server.
          silence_seconds: after which a worker is presumed lost that owes a message; 0 for no limit.
        """
        super().__init__(parts)
        self._index = parts.messages.rank - parts.workers
        self._ledger = Ledger(Rules(sys.maxsize, (), 1, 0), set(range(parts.workers)))
        self._coordinator = Coordinator(
            parts.messages, self._others, self._ledger, self._counts, silence_seconds, leads=self._index == 0
        )
        self.staleness = Staleness()
        self._version = 0  # updates of the shard
        self._target = np.empty(0, np.float32)
        self._sequences: dict[int, int] = {}
        self._sums = np.zeros(NUM_STATISTICS + 1)  # rows times each statistic, and the largest priority
        self.repeated = 0
        """Gradients that came again, and were not applied again."""
        self._handlers |= {
            Kind.BEGIN: self._begin,
            Kind.REPORT: self._coordinator.take_report,
            Kind.GATHER: self._coordinator.take_gather,
            Kind.DROP: self._coordinator.take_drop,
        }

    @property
    def lost(self) -> bool:
        """Returns whether a worker is lost."""
        return len(self._ledger.living) < self._workers

    @property
    def applied(self) -> dict[int, int]:
        """Returns how many gradients of each worker were applied."""
        return dict(self._ledger.clocks)

    def _watched(self) -> list[int]:
        """Returns the ranks without which the job cannot continue: worker 0 and the other servers."""
        return [0, *self._others]

    def _handle(self, message: Message) -> None:
        """Handles a message, unless its worker is presumed lost."""
        if message.source >= self._workers or self._coordinator.hears(message.source):
            super()._handle(message)

    def _idle(self) -> None:
        """Runs between two looks for a message."""
        super()._idle()
        self._coordinator.look()

    def _continue_without(self, lost: PeerLost) -> None:
        """Continues without a worker that has died, perhaps in the middle of a message."""
        if lost.rank in self._watched():
            raise lost
        self._coordinator.lose(lost.rank)

    def _load(self, message: Message) -> None:
        """Takes online parameters, slots, and target parameters."""
        vectors, length = message.floats(), self.shard.length
        self.shard.load(vectors[: len(vectors) - length])
        self._target = vectors[len(vectors) - length :].copy()

    def _begin(self, message: Message) -> None:
        """Takes where the job's counters stand; worker 0's parameters have come before."""
        described = json.loads(message.body.tobytes())
        rules, counters = Rules(**described["rules"]), Counters.from_dict(described["counters"])
        self._ledger = Ledger(rules, self._ledger.living, counters)
        self._coordinator.begin(self._ledger)
        self.staleness, self._sequences = Staleness(), {}
        self._version = 0
        self._sums = np.array([*[0.0] * NUM_STATISTICS, described["largest_priority"]])
        self._messages.send(message.source, Kind.BEGIN)

    def _push(self, message: Message) -> None:
        """Applies a gradient, unless it was applied before, and answers with the new parameters."""
        push = Push.read(message.header)
        if push.rows > 0:
            self._apply(message.source, push, message.floats())
        parameters = [self.shard.online.numpy()]
        target_updates = self._ledger.counters.target_updates
        if push.rows == 0 or push.versions[2 * self._index + 1] != target_updates:
            parameters.append(self._target)
        header = (self._stop_asked(), self._version, target_updates)
        self._messages.send(message.source, Kind.PULL, header, np.concatenate(parameters))

    def _apply(self, worker: int, push: Push, gradient: np.ndarray) -> None:
        """Applies a gradient once; its rate is the part of a global batch that its rows are."""
        if push.sequence <= self._sequences.get(worker, 0):
            self.repeated += 1
            return
        self._sequences[worker] = push.sequence
        ledger, staleness = self._ledger, self._version - push.versions[2 * self._index]
        rate = push.rate * push.rows / ledger.rules.global_batch_size
        if ledger.rules.inverse_rate:
            rate /= max(1, staleness)
        number = 1 + ledger.rows // push.rows  # of updates of this size
        self.shard.apply(number, rate, tf.constant(gradient), push.square)
        self.staleness.note(staleness)
        self._version += 1
        self._sums[:-1] += push.rows * np.array(push.statistics)
        self._sums[-1] = max(self._sums[-1], push.priority)
        if ledger.applied(worker, push.rows):
            self._target = self.shard.online.numpy()
        self._coordinator.release()

    def _counts(self) -> tuple[float, ...]:
        """Returns the job's progress as `served_async.Counts` reads it."""
        ledger, counters = self._ledger, self._ledger.counters
        own = (self._stop_asked(), ledger.announced, counters.env_steps, ledger.rows, counters.skipped_updates)
        return (*own, counters.target_updates, *self.staleness.summary(), *self._sums)
