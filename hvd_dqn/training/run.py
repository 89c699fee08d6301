"""Runs one job from its assembly to its exit code."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable
from functools import partial

from hvd_dqn.checkpoint.files import write_json
from hvd_dqn.checkpoint.keepalive import with_keepalive
from hvd_dqn.checkpoint.restore import best_parameters
from hvd_dqn.checkpoint.save import SECONDS_TO_FINISH, abandon, copy_metrics, settle
from hvd_dqn.config import Config, flatten
from hvd_dqn.counters import Counters
from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.errors import EXIT_DONE, EXIT_REQUEUE
from hvd_dqn.fingerprint import git_revision, machine, versions
from hvd_dqn.run.config_file import CONFIG_FILE
from hvd_dqn.run.report import closing_summary, launcher_command
from hvd_dqn.run.status import write_status
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.run.time_limit import seconds_left
from hvd_dqn.strategies import servers_of
from hvd_dqn.training.assembly import assemble
from hvd_dqn.training.asynchronous import among_the_living
from hvd_dqn.training.job import Job
from hvd_dqn.training.resume import restore
from hvd_dqn.training.run_directory import RunDirectoryHandle
from hvd_dqn.training.saving import leave_whole, save

Train = Callable[[Job], bool]
"""Trains until the env steps are done; returns False if the job is to stop earlier."""


def run_job(config: Config, runtime: Runtime, stop: StopRequest, command: list[str], train: Train) -> int:
    """Runs the job on ranks that stay the same, and returns the exit code; a collective.

    Raises:
      UserError: on all ranks.
    """
    handle, job = RunDirectoryHandle(), None
    try:
        communicator = runtime.communicator
        among_the_living(communicator, lambda: stop_before_time_limit(config, communicator, stop))  # COLLECTIVE
        job = among_the_living(communicator, lambda: _restored(config, runtime, stop, command, handle))  # COLLECTIVE
        return train_to_exit_code(job, config, command, train)  # COLLECTIVE
    finally:
        if job is not None:
            close_job(job)
        handle.close()


def _restored(
    config: Config, runtime: Runtime, stop: StopRequest, command: list[str], handle: RunDirectoryHandle
) -> Job:
    """Returns the job, ready to train; a collective."""
    job = assemble(config, runtime, stop, command, handle)  # COLLECTIVE
    try:
        job.watchdog.start()
        restore(job)  # COLLECTIVE
    except BaseException:
        close_job(job)
        raise
    return job


def stop_before_time_limit(config: Config, communicator: Communicator, stop: StopRequest) -> None:
    """Schedules a stop before the job's time limit, as rank 0 knows it; a collective.

    Raises:
      UserError: on all ranks, before there is a run directory.
    """
    running_for = time.monotonic() - stop.started
    left = on_root(communicator, lambda: seconds_left(config.runtime.time_limit, running_for))  # COLLECTIVE
    if left is not None:
        reserve = config.runtime.time_reserve_seconds
        stop.request_in(left - reserve, grace_seconds=reserve / 2, reason="time limit")


def train_to_exit_code(job: Job, config: Config, command: list[str], train: Train) -> int:
    """Trains the restored job, evaluates the best checkpoint, and returns the exit code; a collective.

    Raises:
      UserError: on all ranks.
    """
    run = partial(job.learning.updates.run, job)
    run(lambda: _record_run(job, config, command))  # COLLECTIVE
    if job.communicator.rank == 0:
        write_status("run_directory", job.directory.path.resolve())
    begun = dataclasses.replace(job.counters)
    if not train(job):  # COLLECTIVE
        return run(lambda: _save_and_stop(job))  # COLLECTIVE
    job.acting.collector.close()  # some environments cannot exist twice at a time
    if not run(lambda: _evaluate_best(job, begun, command[0])):  # COLLECTIVE
        return EXIT_REQUEUE
    run(lambda: _finish_films(job))  # COLLECTIVE
    run(lambda: copy_metrics(job.checkpoints, job.records.display.message))  # COLLECTIVE
    run(lambda: leave_whole(job))  # COLLECTIVE
    return EXIT_DONE


def close_job(job: Job, seconds: float = SECONDS_TO_FINISH) -> None:
    """Closes all that a job has opened but its run directory; no collective.

    Args:
      job: the job, however far it came.
      seconds: how long to wait for the checkpoint in progress.
    """
    job.watchdog.stop()
    abandon(job.checkpoints, seconds)
    job.records.close()
    job.learning.updates.close()
    job.evaluation.play.close()
    job.acting.collector.close()


def _finish_films(job: Job) -> None:
    """Waits a bounded time for the film in progress; a collective where films are recorded."""
    if job.config.evaluation.record_period == 0:
        return
    look = with_keepalive(
        job.communicator,
        job.watchdog,
        "finishing the last film",
        lambda: job.records.recorder.wait(lambda: job.stop.requested),
    )  # COLLECTIVE
    raise_on_any_rank(job.communicator, look)  # COLLECTIVE
    job.records.take_films()


def _record_run(job: Job, config: Config, command: list[str]) -> None:
    """Writes config.json on rank 0; a collective. Called once nothing can refuse the run any more.

    Args:
      job: the job, restored.
      config: the configuration as the user gave it, before any weak scaling, so that it can be given again.
      command: the command line.

    Raises:
      UserError: on all ranks, if it cannot be written.
    """
    record = {
        "config": flatten(config) | {"resume": "", "allow_missing_replay": False, "learner": job.learning.chosen},
        "ranks": job.communicator.size,
        "command": command,
        "versions": versions(),
        "machine": machine(),
        "git_revision": git_revision(),
        "unix_time": time.time(),
    }

    def write() -> None:
        if job.communicator.rank == 0:
            if job.checkpoints.outside_run_directory:
                write_json(job.checkpoints.store.folder / CONFIG_FILE, record)
            job.directory.write_config(record)

    look = job.checkpoints.with_keepalive("writing the configuration", write)  # COLLECTIVE
    on_root(job.communicator, look)  # COLLECTIVE


def _save_and_stop(job: Job) -> int:
    """Saves the job at the step where it was asked to stop; a collective."""
    writing, env_steps = job.checkpoints.writing, job.counters.env_steps
    if writing is None or writing.env_steps != env_steps:
        save(job, score=None)  # COLLECTIVE
    settle(job.checkpoints)  # COLLECTIVE
    leave_whole(job)  # COLLECTIVE
    job.records.display.close()
    place = shlex.quote(str(job.directory.path))
    if job.checkpoints.outside_run_directory:
        place += f", or from anywhere {job.checkpoints.store.folder}"
    job.records.display.message(f"stopped and saved at env step {env_steps:,}; resume with: --resume {place}")
    return EXIT_REQUEUE


def _evaluate_best(job: Job, begun: Counters, program: str) -> bool:
    """Evaluates the best checkpoint on fresh episodes and prints the closing summary; a collective.

    Args:
      job: the job.
      begun: the run's counters when this job began or resumed it.
      program: path of train.py.

    Returns:
      False if a rank was asked to stop before the end; a resume repeats the evaluation.
    """
    records = job.records
    best_env_steps, parameters = best_parameters(
        job.checkpoints, job.learning.learner.online, records.display.warn
    )  # COLLECTIVE
    episodes = job.config.evaluation.final_evaluation_episodes
    played = job.evaluation.evaluate(parameters, "final-evaluation", 0, episodes)  # COLLECTIVE
    if played is None:
        records.display.close()
        records.display.message(
            "stopped during the final evaluation; the run is saved, "
            f"resume with: --resume {shlex.quote(str(job.directory.path))}"
        )
        return False
    text, record = closing_summary(
        run_directory=job.directory.path,
        seconds=time.monotonic() - records.started,
        begun=begun,
        counters=job.counters,
        best_env_steps=best_env_steps,
        returns=played.returns,
        env_id=job.config.environment.env,
        epsilon=job.config.evaluation.evaluation_epsilon,
        launcher=launcher_command(job.communicator.size + servers_of(job.config), job.communicator.controller),
        program=program,
    )
    records.write("final_evaluation", job.counters.env_steps, record | played.value_fields())
    records.display.close()
    records.display.message(text)
    return True
