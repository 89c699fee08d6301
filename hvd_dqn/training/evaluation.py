"""Greedy evaluation over all ranks."""

from __future__ import annotations

import numpy as np

from hvd_dqn.distributed.agreement import raise_fault_on_any_rank
from hvd_dqn.learner.learner import Vector
from hvd_dqn.seeding import integer_seed
from hvd_dqn.training.faults import describe
from hvd_dqn.training.job import Job

_SLICE_SECONDS = 1.0
"""Ranks meet this often, so that none waits for another's long episodes until the watchdog bites."""


def evaluate(job: Job, parameters: Vector, stream: str, occasion: int, episodes: int) -> np.ndarray | None:
    """Plays greedy episodes, shared out over the ranks; a collective.

    Args:
      job: the job.
      parameters: the weights [P] to evaluate, equal on all ranks.
      stream: name of the seeds' stream, so that evaluations never share seeds with training or each other.
      occasion: a number that is different for each evaluation of the stream.
      episodes: number of episodes over all ranks.

    Returns:
      float64 [episodes], the returns, equal on all ranks; None if a rank was asked to stop before the end.

    Raises:
      JobFault: on all ranks, if an environment fails on any.
    """
    rank, size = job.communicator.rank, job.communicator.size
    job.evaluated_values.load(parameters)
    job.evaluation.begin(
        [(i, integer_seed(job.config.job.seed, stream, occasion, i)) for i in range(rank, episodes, size)]
    )
    while True:
        job.watchdog.beat("evaluating")
        fault = None
        try:
            remaining = job.evaluation.run(_SLICE_SECONDS)
        except Exception as error:
            fault, remaining = describe(error), 0
        mine = [float(remaining), float(fault is not None), float(job.stop.requested)]
        unfinished, faults, stops = job.communicator.sum(np.array(mine))  # COLLECTIVE
        if faults:
            raise_fault_on_any_rank(job.communicator, fault)  # COLLECTIVE
        if stops:
            return None
        if not unfinished:
            break
    returns: dict[str, float] = {}
    for part in job.communicator.gather_json(job.evaluation.returns()):  # COLLECTIVE
        returns |= part
    return np.array([returns[str(i)] for i in range(episodes)])
