"""Feeds one stream of global batches to the learner, each rank taking its slice, and saves what comes out.

    learner_stream.py OUT_FOLDER LEARNER

LEARNER is `graph` (TensorFlow, its sums carried by Horovod), `numpy` (NumPy's gradients, carried by MPI) or `mixed`
(TensorFlow's gradients, through shared memory). Each rank writes OUT_FOLDER/rank<r>.npz with: the gradient of one
global batch (loss `mse` and `huber`), what the learner reports on it, and the learner's state after one hundred steps.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment

prepare_environment(read_launch(), threads_per_rank=1, stall_timeout_seconds=60.0)  # before TensorFlow is imported

from hvd_dqn.distributed.communicator import Communicator  # noqa: E402
from hvd_dqn.distributed.horovod import HorovodCommunicator  # noqa: E402
from hvd_dqn.distributed.mpi import MPICommunicator  # noqa: E402
from hvd_dqn.distributed.shared_memory import SharedMemoryCommunicator  # noqa: E402
from hvd_dqn.learner.graph_gradients import GraphGradients  # noqa: E402
from hvd_dqn.learner.graph_network import GraphNetwork  # noqa: E402
from hvd_dqn.learner.learner import Learner, LearnReport, state_of  # noqa: E402
from hvd_dqn.learner.tensorflow import GraphLearner  # noqa: E402
from hvd_dqn.native.compiled_gradients import make_host_gradients  # noqa: E402
from hvd_dqn.native.compiled_mlp import make_mlp  # noqa: E402
from hvd_dqn.native.learner import HostLearner, MakeGradients  # noqa: E402
from hvd_dqn.native.library import load_kernels  # noqa: E402
from hvd_dqn.networks.build import build_network  # noqa: E402
from hvd_dqn.shares import first_index, share  # noqa: E402
from hvd_dqn.transition import Transition  # noqa: E402

KIND = sys.argv[2]
GLOBAL_BATCH_SIZE = 128
HUGE_STEP = 1024.0
"""A power of two: dividing a plain gradient step of this size gives the gradient without losing digits."""
UPDATES_PER_CALL = (1, 3, 16, 20, 10, 25, 25)  # one hundred learner steps


def global_batches(rng: np.random.Generator, updates: int) -> Transition:
    """Returns batches [updates, GLOBAL_BATCH_SIZE] whose first and last transitions differ wildly."""
    shape = (updates, GLOBAL_BATCH_SIZE)
    size = np.linspace(0.1, 5.0, GLOBAL_BATCH_SIZE)
    return Transition(
        s_tm1=(rng.normal(size=(*shape, 4)) * size[:, None]).astype(np.float32),
        a_tm1=rng.integers(3, size=shape).astype(np.int32),
        r_t=(rng.normal(size=shape) * size).astype(np.float32),
        terminated=rng.random(shape) < 0.2,
        truncated=rng.random(shape) < 0.1,
        s_t=(rng.normal(size=(*shape, 4)) * size[:, None]).astype(np.float32),
    )


def make_learner(
    communicator: Communicator, *, optimizer: str, learning_rate: float, loss: str, clip: float, jit_compile: bool
) -> Learner:
    """Builds the learner that the command line names, for this rank's share."""
    model = build_network("mlp", (4,), np.dtype(np.float32), 0, 3, (32, 32), seed=5)
    rule: dict[str, Any] = {
        "loss": loss,
        "gamma": 0.97,
        "double_dqn": loss == "huber",
        "global_batch_size": GLOBAL_BATCH_SIZE,
    }
    step: dict[str, Any] = {
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "max_grad_norm": clip,
        "num_flags": 2,
    }
    shapes: dict[str, Any] = {"batch_size_per_rank": share(GLOBAL_BATCH_SIZE, communicator.rank, communicator.size)}
    network, kernels = GraphNetwork(model, **rule), load_kernels()
    layout, initial = network.layout, network.layout.flatten_variables(model)
    if KIND == "graph":
        return GraphLearner(
            network, initial, allreduce_sum=communicator.allreduce_sum, jit_compile=jit_compile, **step, **shapes
        )
    make_gradients: MakeGradients = partial(GraphGradients, network, **shapes)
    if KIND == "numpy":
        mlp = make_mlp(kernels, layout, 0, np.dtype(np.float32), threads=1)
        make_gradients = partial(make_host_gradients, mlp, **rule, **shapes)
    rounds: dict[str, Any] = {
        "make_rounds": communicator.make_rounds,
        "compiled_exchange": communicator.compiled_exchange,
        "take_memory": communicator.take_memory,
    }
    return HostLearner(kernels, layout, initial, make_gradients, **rounds, **step)


def own_part(communicator: Communicator, batches: Transition) -> Transition:
    """Returns this rank's slice of each global batch."""
    first = first_index(GLOBAL_BATCH_SIZE, communicator.rank, communicator.size)
    own = slice(first, first + share(GLOBAL_BATCH_SIZE, communicator.rank, communicator.size))
    return Transition(*(column[:, own] for column in batches))


def gradient(communicator: Communicator, loss: str) -> tuple[np.ndarray, LearnReport]:
    """Returns the global gradient [P] that one unclipped step of plain gradient descent takes."""
    learner = make_learner(
        communicator, optimizer="sgd", learning_rate=HUGE_STEP, loss=loss, clip=0.0, jit_compile=False
    )  # compiled by XLA below; here its seconds are saved
    before = np.array(learner.online)
    report = learner.learn(
        own_part(communicator, global_batches(np.random.default_rng(1), 1)), np.array([1.0, communicator.rank])
    )
    return (before - np.array(learner.online)) / HUGE_STEP, report


def hundred_steps(communicator: Communicator) -> dict[str, np.ndarray]:
    """Returns the learner's state after one hundred clipped Adam steps with a target sync after each call."""
    learner = make_learner(communicator, optimizer="adam", learning_rate=1e-3, loss="mse", clip=1.0, jit_compile=True)
    rng = np.random.default_rng(2)
    for updates in UPDATES_PER_CALL:
        learner.learn(own_part(communicator, global_batches(rng, updates)), np.zeros(2))
        learner.load_target(communicator.broadcast(learner.online))
    assert learner.step == 100
    return state_of(learner)


def main() -> None:
    """Runs on every rank."""
    communicator: Communicator = HorovodCommunicator() if KIND == "graph" else MPICommunicator()
    if KIND == "mixed" and communicator.size > 1:
        communicator = SharedMemoryCommunicator(communicator, required=True)
    saved: dict[str, np.ndarray] = {"share": np.array(share(GLOBAL_BATCH_SIZE, communicator.rank, communicator.size))}
    for loss in ("mse", "huber"):
        saved[f"gradient_{loss}"], report = gradient(communicator, loss)
        saved[f"report_{loss}"] = np.array([report.loss, report.abs_td_error, report.mean_q])
        saved["flags"] = report.flags
    np.savez(Path(sys.argv[1]) / f"rank{communicator.rank}.npz", **saved, **hundred_steps(communicator))
    communicator.shutdown()


if __name__ == "__main__":
    main()
