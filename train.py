#!/usr/bin/env python
"""Trains a Deep Q-Network on one or many ranks: the entry and the loop.

    python train.py                       one rank
    horovodrun -np 4 python train.py      four ranks on this host
    mpirun -np 4 python train.py          the same through MPI's own launcher

All ranks run this file in lockstep. Every branch that leads to a collective depends only on the configuration, on
counters and on signals that are equal on all ranks; what one rank alone knows travels in its `Signals` first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hvd_dqn.cli.packages import require_packages
from hvd_dqn.run.terminal import keep_standard_streams

if __name__ == "__main__":
    keep_standard_streams()
    require_packages(Path(__file__))  # the imports below need them

from hvd_dqn.cli.arguments import parse
from hvd_dqn.cli.ranks import refuse, run_to_exit
from hvd_dqn.counters import crossed
from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import UserError
from hvd_dqn.run.directory import check_checkpoint_path, read_config_of
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.strategies import check_ranks, uses_servers

if TYPE_CHECKING:
    from hvd_dqn.training.job import Job

PROGRAM = "train.py"


def train(job: Job) -> bool:
    """Trains until the env steps are done; returns False if a signal or the time limit stopped the job earlier.

    Raises:
      JobFault: on all ranks, if an environment fails, a gradient is not finite or the ranks' weights differ.
    """
    counters, acting, learning, profile = job.counters, job.acting, job.learning, job.records.profile
    num_envs = job.config.environment.num_envs
    while counters.env_steps < job.config.job.total_env_steps:
        with profile.iteration():
            # Collect: one step in each of this rank's environments, into this rank's replay.
            job.watchdog.beat("collecting")
            learning.updates.begin(job)  # COLLECTIVE with --policy-lag 1, which overlaps learning with collecting
            with profile.phase("collect"):
                actions = acting.choose_actions(counters)  # epsilon-greedy
                collected = acting.step(actions, counters.env_steps + num_envs)
            job.watchdog.beat("learning")
            learning.updates.wait()
            if collected.transitions is not None:
                learning.replay.add(collected.transitions)
            counters.env_steps += num_envs

            # Learn: K updates in one call, one allreduce each; it sums the ranks' signals, too.
            report, skipped, signals = learning.updates.finish(job, job.signals(collected))  # COLLECTIVE
            counters.learner_steps += report.steps
            counters.skipped_updates += skipped
            job.records.averages.add(report.steps, report.loss, report.priority, report.mean_q)
            if report.steps > 0:
                acting.values.load(learning.learner.online)
            if signals is None:
                continue  # the strategy lets the ranks continue without one another for now
            counters.episodes += round(signals.episodes)

            # Target: rank 0's online network becomes the target network of all ranks.
            if crossed(job.met.learner_steps, counters.learner_steps, learning.target_update_period):
                learning.learner.load_target(job.communicator.broadcast(learning.learner.online))  # COLLECTIVE
                counters.target_updates += 1

        # Log, evaluate, save, stop: each hook has its own period, see hvd_dqn/training/hooks.py.
        if not job.run_hooks(signals, collected.fault):  # COLLECTIVE where one is due
            return False
    return True


def main(arguments: list[str]) -> int:
    """Runs the job on this rank and returns its exit code."""
    launch, command = read_launch(), [os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    stop = StopRequest()
    stop.install()
    try:
        config = parse(arguments, read_config_of, quiet=launch.rank > 0)
        check_ranks(config, launch.size, by_mpi=launch.under_mpi, elastic=launch.elastic)
        # Under an elastic launcher a rank may start when the others have saved already: an existing run is no mistake.
        check_checkpoint_path(config.job.checkpoint_path, bool(config.job.resume) or launch.elastic, launch.size)
    except UserError as error:
        return refuse(PROGRAM, error, launch, stop)
    own = config.runtime
    threads = prepare_environment(
        launch, own.threads_per_rank, own.stall_timeout_seconds, own.bind_to_cores
    )  # COLLECTIVE
    other: ElasticJob | ParameterServerJob | None = None
    device: str = own.device
    if launch.elastic:
        from hvd_dqn.elastic.entry import ElasticJob  # ranks that come and go

        other = ElasticJob()
    elif uses_servers(config):
        from hvd_dqn.training.parameter_server import ParameterServerJob  # ranks that apply the others' gradients

        other = served = ParameterServerJob(launch, config)
        launch, device = served.placed(own.device)
    runtime = start(launch, threads, device, own.profile, other.connect if other else None)  # COLLECTIVE
    from hvd_dqn.training.run import run_job  # NumPy and TensorFlow: after the thread pools' sizes are set

    run = other.run if other else run_job
    return run_to_exit(PROGRAM, runtime.communicator, lambda: run(config, runtime, stop, command, train))  # COLLECTIVE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
