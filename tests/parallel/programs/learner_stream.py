"""Feeds one stream of global batches to a learner, each rank taking its slice, and saves what comes out.

    learner_stream.py OUT_FOLDER tensorflow|native|ps-1|ps-2|async-1|async-2

Each rank writes OUT_FOLDER/rank<r>.npz with: the gradient of one global batch (loss `mse`, and `huber` with Double
DQN), what the learner reports on it, and the learner's state after one hundred steps; all but native also the gradient
of weighted losses, that of DecQN's actions of two joints, and the state after steps of weighted losses and of QR-DQN.
With ps-N the last N ranks are parameter servers, and write nothing.
With async-N they are asynchronous, and each worker makes one update from the initial parameters: the sum is a gradient.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start

LAUNCH = read_launch()
THREADS = prepare_environment(LAUNCH, threads_per_rank=1, stall_timeout_seconds=60.0)  # before TensorFlow is imported

from hvd_dqn.algorithms.base import Algorithm  # noqa: E402
from hvd_dqn.algorithms.decqn import DecQN  # noqa: E402
from hvd_dqn.algorithms.dqn import DQN  # noqa: E402
from hvd_dqn.algorithms.qr import QRDQN  # noqa: E402
from hvd_dqn.counters import Counters  # noqa: E402
from hvd_dqn.distributed.communicator import Communicator  # noqa: E402
from hvd_dqn.distributed.messages import Kind  # noqa: E402
from hvd_dqn.distributed.servers import LivingWorkers, connect  # noqa: E402
from hvd_dqn.learner.flat_network import FlatNetwork  # noqa: E402
from hvd_dqn.learner.gradient import Compilation, UpdateParts  # noqa: E402
from hvd_dqn.learner.learner import Learner, Report, StepSettings, no_clock, state_of  # noqa: E402
from hvd_dqn.learner.served import ServedLearner, Servers  # noqa: E402
from hvd_dqn.learner.served_async import AsynchronousLearner, AsynchronousServers  # noqa: E402
from hvd_dqn.learner.serving import Server, ServerParts  # noqa: E402
from hvd_dqn.learner.serving_async import AsynchronousServer  # noqa: E402
from hvd_dqn.learner.tensorflow import TensorFlowLearner  # noqa: E402
from hvd_dqn.native.build import NativeAgent  # noqa: E402
from hvd_dqn.networks.mlp import build  # noqa: E402
from hvd_dqn.networks.spec import NetworkSpec  # noqa: E402
from hvd_dqn.shares import first_index, share  # noqa: E402
from hvd_dqn.transition import Transition  # noqa: E402

KIND = sys.argv[2]
ASYNCHRONOUS = KIND.startswith("async-")
NUM_SERVERS = int(KIND.partition("-")[2] or 0)
SERVERS: list[Servers] = []
"""A worker's side of the parameter servers, if there are any."""
GLOBAL_BATCH_SIZE = 128
HUGE_STEP = 1024.0
"""A power of two: dividing a plain gradient step of this size gives the gradient without losing digits."""
VARIANTS: dict[str, dict[str, Any]] = {
    "unclipped": {"clip": 0.0},
    "prioritized": {"weighted": True},
    "qr": {"quantiles": 5},
}
"""Hundred steps that the parameter servers must make as an allreduce does."""
UPDATES_PER_CALL = (1, 3, 16, 20, 10, 25, 25)  # one hundred learner steps


def global_batches(rng: np.random.Generator, updates: int) -> Transition:
    """Returns batches [updates, GLOBAL_BATCH_SIZE] whose first and last transitions differ wildly."""
    shape = (updates, GLOBAL_BATCH_SIZE)
    size = np.linspace(0.1, 5.0, GLOBAL_BATCH_SIZE)
    return Transition(
        s_tm1=(rng.normal(size=(*shape, 4)) * size[:, None]).astype(np.float32),
        a_tm1=rng.integers(3, size=shape).astype(np.int32),
        r_t=(rng.normal(size=shape) * size).astype(np.float32),
        discount_t=np.float32(0.97) * (rng.random(shape) >= 0.2),
        s_t=(rng.normal(size=(*shape, 4)) * size[:, None]).astype(np.float32),
    )


def make_learner(
    communicator: Communicator,
    *,
    optimizer: str,
    learning_rate: float,
    loss: str,
    clip: float,
    weighted: bool = False,
    quantiles: int = 0,
    joints: int = 0,
) -> Learner:
    """Builds the learner that the command line names, for this rank's share; of QR-DQN or DecQN where asked for."""
    algorithm: Algorithm = (DecQN if joints else DQN)(loss, double=loss == "huber")
    if quantiles:
        algorithm = QRDQN(quantiles, double=False)
    spec = NetworkSpec((4,), np.dtype(np.float32), 0, 3, (32, 32), 5, algorithm.outputs_per_action, joints=joints)
    network = FlatNetwork(build(spec))
    rank, size = communicator.rank, communicator.size
    settings = StepSettings(
        optimizer,
        learning_rate,
        max_grad_norm=clip,
        batch_size_per_rank=share(GLOBAL_BATCH_SIZE, rank, size),
        first_row=first_index(GLOBAL_BATCH_SIZE, rank, size),
        global_batch_size=GLOBAL_BATCH_SIZE,
        num_signals=2,
        weighted=weighted,
        rank=rank,
        size=size,
    )
    if KIND == "native":
        agent = NativeAgent(network.layout, network.initial_parameters(), 0, np.dtype(np.float32))
        mpi = communicator.mpi_handles
        rule = algorithm.native_rule or ""
        return agent.learner(settings, rule=rule, loss=loss, mpi=mpi, clock=no_clock)
    action_shape = (joints,) if joints else ()
    parts = UpdateParts(network, algorithm, settings, Compilation(jit_compile=True), action_shape)
    if SERVERS:
        served = AsynchronousLearner if ASYNCHRONOUS else ServedLearner
        return served(parts, SERVERS[0])
    return TensorFlowLearner(parts, communicator.allreduce_in_graph)


def own_part(communicator: Communicator, batches: Transition) -> tuple[Transition, np.ndarray]:
    """Returns this rank's slice of each global batch, and weights of one."""
    first = first_index(GLOBAL_BATCH_SIZE, communicator.rank, communicator.size)
    own = slice(first, first + share(GLOBAL_BATCH_SIZE, communicator.rank, communicator.size))
    part = Transition(*(column[:, own] for column in batches))
    return part, np.ones(part.r_t.shape, np.float32)


def gradient(
    communicator: Communicator, loss: str, weighted: bool = False, joints: int = 0
) -> tuple[np.ndarray, Report]:
    """Returns the global gradient [P] that one unclipped step of plain gradient descent takes.

    Weighted, the losses' factors are unlike and above one, the largest on the last rank.
    """
    learner = make_learner(
        communicator, optimizer="sgd", learning_rate=HUGE_STEP, loss=loss, clip=0.0, weighted=weighted, joints=joints
    )
    before, rng = np.array(learner.online), np.random.default_rng(1)
    whole = global_batches(rng, 1)
    if joints:
        whole = whole._replace(a_tm1=rng.integers(3, size=(*whole.a_tm1.shape, joints)).astype(np.int32))
    batches, weights = own_part(communicator, whole)
    if weighted:
        first = first_index(GLOBAL_BATCH_SIZE, communicator.rank, communicator.size)
        weights *= 1.5 + np.arange(first, first + weights.shape[1], dtype=np.float32) ** 1.5
    if isinstance(learner, AsynchronousLearner):
        rules = {"total_env_steps": 1, "periods": [], "global_batch_size": GLOBAL_BATCH_SIZE, "target_update_period": 0}
        learner.begin({"rules": rules, "counters": Counters().as_dict(), "largest_priority": 0})
        communicator.barrier()
    report = learner.learn(batches, weights, np.array([1.0, communicator.rank], np.float32))
    if isinstance(learner, AsynchronousLearner):
        communicator.barrier()
        learner.refresh()
    return (before - np.array(learner.online)) / HUGE_STEP, report


def hundred_steps(
    communicator: Communicator, clip: float = 1.0, weighted: bool = False, quantiles: int = 0
) -> dict[str, np.ndarray]:
    """Returns the learner's state after one hundred Adam steps with a target sync after each call."""
    learner = make_learner(
        communicator,
        optimizer="adam",
        learning_rate=1e-3,
        loss="mse",
        clip=clip,
        weighted=weighted,
        quantiles=quantiles,
    )
    rng = np.random.default_rng(2)
    for updates in UPDATES_PER_CALL:
        batches, weights = own_part(communicator, global_batches(rng, updates))
        factors = np.random.default_rng(3).uniform(0.1, 1.0, (updates, GLOBAL_BATCH_SIZE)).astype(np.float32)
        first = first_index(GLOBAL_BATCH_SIZE, communicator.rank, communicator.size)
        if weighted:
            weights = factors[:, first : first + weights.shape[1]]
        learner.learn(batches, weights, np.zeros(2, np.float32))
        learner.load_target(communicator.broadcast(learner.online))
    assert learner.step == 100
    return state_of(learner)


def join() -> Communicator | None:
    """Connects the ranks; returns None on a parameter server once it has served."""
    if not NUM_SERVERS:
        communicator = start(LAUNCH, THREADS, "cpu", timeline=False).communicator
        if KIND == "tensorflow":
            communicator.start_horovod()
        return communicator
    workers = range(LAUNCH.size)[:-NUM_SERVERS]
    ranks = range(LAUNCH.size)[-NUM_SERVERS:]

    def leave() -> None:
        if LAUNCH.rank == 0:
            for rank in ranks:
                messages.send(rank, Kind.END, (0,))

    communicator, messages = connect(LAUNCH, NUM_SERVERS, leave, asynchronous=ASYNCHRONOUS)
    if LAUNCH.rank in ranks:
        server = AsynchronousServer if ASYNCHRONOUS else Server
        assert server(ServerParts(messages, len(workers), lambda: False)).serve() == 0
        return None
    if isinstance(communicator, LivingWorkers):
        SERVERS.append(AsynchronousServers(messages, ranks, communicator.relay, lambda: None))
    else:
        SERVERS.append(Servers(messages, ranks))
    return communicator


def leave(communicator: Communicator) -> None:
    """Ends communication, once no rank needs the servers any longer."""
    if NUM_SERVERS:
        communicator.barrier()
    communicator.shutdown()


def main() -> None:
    """Runs on every rank."""
    communicator = join()
    if communicator is None:
        return
    saved: dict[str, np.ndarray] = {"share": np.array(share(GLOBAL_BATCH_SIZE, communicator.rank, communicator.size))}
    for loss in ("mse", "huber"):
        saved[f"gradient_{loss}"], report = gradient(communicator, loss)
        saved[f"report_{loss}"] = np.array([report.loss, report.priority, report.mean_q])
        saved["signals"], saved["priorities"] = report.signals, report.priorities
    if ASYNCHRONOUS:
        np.savez(Path(sys.argv[1]) / f"rank{communicator.rank}.npz", **saved)
        leave(communicator)
        return
    if KIND != "native":
        saved["gradient_weighted"], report = gradient(communicator, "huber", weighted=True)
        saved["report_weighted"] = np.array([report.loss, report.priority, report.mean_q, report.largest_priority])
        saved["largest_priority"] = report.priorities.max()
        for name, options in VARIANTS.items():
            saved |= {f"{name}/{vector}": value for vector, value in hundred_steps(communicator, **options).items()}
        saved["gradient_joints"], report = gradient(communicator, "huber", weighted=True, joints=2)
        saved["report_joints"] = np.array([report.loss, report.priority, report.mean_q])
    np.savez(Path(sys.argv[1]) / f"rank{communicator.rank}.npz", **saved, **hundred_steps(communicator))
    leave(communicator)


if __name__ == "__main__":
    main()
