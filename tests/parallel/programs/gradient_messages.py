"""Workers push one-hot gradients to two asynchronous servers at random times; each weight counts what was applied.

    gradient_messages.py OUT_FOLDER PUSHES STALENESS KILLED DELAY_MICROSECONDS

Plain gradient descent with a rate of 1: weight w of each shard is minus the number of worker w's gradients that this
server has applied. Every tenth push is sent twice. Worker 1 is the slow one. With KILLED > 0 the last worker dies by
SIGKILL after as many pushes, in the middle of one more. Worker 0 writes OUT_FOLDER/weights.json, each server
server<r>.json: what it has applied, how often a gradient came again, the largest lead of a worker that it has seen,
and its CPU seconds and wall seconds without any message.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from hvd_dqn.counters import Counters
from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment

LAUNCH = read_launch()
prepare_environment(LAUNCH, threads_per_rank=1, stall_timeout_seconds=60.0)  # before TensorFlow is imported

from hvd_dqn.distributed.messages import Kind, Message  # noqa: E402
from hvd_dqn.distributed.relay import RanksChanged  # noqa: E402
from hvd_dqn.distributed.servers import LivingWorkers, connect  # noqa: E402
from hvd_dqn.learner.learner import NUM_STATISTICS, StepSettings  # noqa: E402
from hvd_dqn.learner.served_async import AsynchronousServers, Counts, Push  # noqa: E402
from hvd_dqn.learner.serving import ServerParts  # noqa: E402
from hvd_dqn.learner.serving_async import AsynchronousServer  # noqa: E402

FOLDER, PUSHES, STALENESS, KILLED, DELAY = Path(sys.argv[1]), *map(int, sys.argv[2:6])
NUM_SERVERS = 2
WORKERS = LAUNCH.size - NUM_SERVERS
IDLE_SECONDS = 2.0
SETTINGS = StepSettings("sgd", 1.0, 0.0, 1, 0, 1, 0)


class WatchedServer(AsynchronousServer):
    """Notes how far any worker is ahead of the slowest that lives, and the longest time without a message."""

    largest_lead = 0
    idle = (0.0, 0.0)
    _since = (0.0, 0.0)

    def note_idle(self) -> None:
        """Keeps the wall and CPU seconds since the last message, if no other silence was longer."""
        now = time.monotonic(), time.process_time()
        if self._since[0]:
            self.idle = max(self.idle, (now[0] - self._since[0], now[1] - self._since[1]))

    def _handle(self, message: Message) -> None:
        self.note_idle()
        super()._handle(message)
        self._since = time.monotonic(), time.process_time()

    def _apply(self, worker: int, push: Push, gradient: np.ndarray) -> None:
        super()._apply(worker, push, gradient)
        clocks = [self._ledger.clocks.get(other, 0) for other in self._ledger.living]
        self.largest_lead = max(self.largest_lead, max(clocks) - min(clocks))


class Pushing:
    """One worker's side of the exchange."""

    def __init__(self, communicator: LivingWorkers, servers: AsynchronousServers) -> None:
        """Pushes nothing yet."""
        self.communicator, self.servers = communicator, servers
        self.versions = [0, 0] * NUM_SERVERS
        self.weights = np.zeros((NUM_SERVERS, WORKERS), np.float32)
        self.gradient = np.tile(np.eye(WORKERS, dtype=np.float32)[LAUNCH.rank], NUM_SERVERS)

    def push(self, sequence: int, rows: int = 1) -> None:
        """Pushes a gradient, or none, and pulls the weights."""
        push = Push(sequence, 1.0, rows, 1.0, 0.0, (0.0,) * NUM_STATISTICS, tuple(self.versions))
        self.servers.push(push.header(), self.gradient if rows else np.empty(0, np.float32))
        for index, answer in enumerate(self.servers.pull()):
            self.weights[index] = answer.floats()[:WORKERS]
            self.versions[2 * index : 2 * index + 2] = map(int, answer.header[1:3])

    def die(self, sequence: int) -> None:
        """Dies when a gradient is on its way to the first server, and not to the second."""
        push = Push(sequence, 1.0, 1, 1.0, 0.0, (0.0,) * NUM_STATISTICS, tuple(self.versions))
        self.servers.messages.send(self.servers.ranks[0], Kind.PUSH, push.header(), self.gradient[:WORKERS])
        os.kill(os.getpid(), signal.SIGKILL)


def begin(pushing: Pushing) -> None:
    """Configures and loads the servers on worker 0."""
    if LAUNCH.rank == 0:
        total = NUM_SERVERS * WORKERS
        pushing.servers.configure(total, SETTINGS)
        pushing.servers.load([np.zeros(total, np.float32)] * 2)  # plain gradient descent has no slots
        rules = {
            "total_env_steps": 2**40,
            "periods": [],
            "global_batch_size": 1,
            "target_update_period": 100,
            "max_staleness": STALENESS,
        }
        pushing.servers.begin({"rules": rules, "counters": Counters().as_dict(), "largest_priority": 0})
    pushing.communicator.barrier()


def work(pushing: Pushing) -> None:
    """Pushes all gradients, each when the servers permit it."""
    chance, sequence, synchronised = random.Random(LAUNCH.rank), 0, 0
    while sequence < PUSHES:
        permitted, counts = pushing.servers.report(1, 0, False, True)
        if counts.announced > synchronised:
            synchronised = synchronise(pushing, finished=False)[0]
        if not permitted:
            continue
        sequence += 1
        if KILLED and sequence > KILLED and LAUNCH.rank == WORKERS - 1:
            pushing.die(sequence)
        pushing.push(sequence)
        if sequence % 10 == 0:
            pushing.push(sequence)
        if LAUNCH.rank == 1 or chance.random() < 0.1:
            time.sleep(chance.random() * DELAY * 1e-6)
    while not synchronise(pushing, finished=True)[1]:
        pass
    pushing.push(0, rows=0)


def synchronise(pushing: Pushing, finished: bool) -> tuple[int, bool]:
    """Waits for all that live; returns the number of the synchronisation, and whether all have finished."""
    while True:
        counts = Counts.of(pushing.communicator.roll_call().tolist())
        with contextlib.suppress(RanksChanged):
            all_finished = pushing.communicator.sum(np.array([float(finished)]))[0] == pushing.communicator.size
            return int(counts.announced), bool(all_finished)


def main() -> None:
    """Runs on every rank."""
    ranks = range(WORKERS, LAUNCH.size)
    lost: list[bool] = []

    def leave() -> None:
        if LAUNCH.rank == 0:
            for rank in ranks:
                messages.send(rank, Kind.END, (0,))
        messages.flush(5.0)

    communicator, messages = connect(LAUNCH, NUM_SERVERS, leave, asynchronous=True)
    if LAUNCH.rank in ranks:
        server = WatchedServer(ServerParts(messages, WORKERS, lambda: False), silence_seconds=60.0)
        assert server.serve() == 0
        server.note_idle()
        lost.append(server.lost)
        record = {
            "applied": server.applied,
            "repeated": server.repeated,
            "largest_lead": server.largest_lead,
            "idle": server.idle,
            "gradients": server.staleness.summary()[0],
        }
        (FOLDER / f"server{LAUNCH.rank}.json").write_text(json.dumps(record))
    else:
        assert isinstance(communicator, LivingWorkers)
        pushing = Pushing(communicator, AsynchronousServers(messages, ranks, communicator.relay, lambda: None))
        begin(pushing)
        work(pushing)
        lost.append(communicator.size < WORKERS)
        if LAUNCH.rank == 0:
            (FOLDER / "weights.json").write_text(json.dumps(pushing.weights.tolist()))
            time.sleep(IDLE_SECONDS)
        communicator.barrier()
        communicator.shutdown()
    if lost[0]:
        os._exit(0)


if __name__ == "__main__":
    main()
