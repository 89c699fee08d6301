#!/usr/bin/env python
"""Trains a Deep Q-Network on one or many ranks: the entry and the loop.

    python train.py                       one rank
    horovodrun -np 4 python train.py      four ranks on this host
    mpirun -np 4 python train.py          the same through MPI's own launcher

All ranks run this file in lockstep. Every branch that leads to a collective depends only on the configuration and
on counters that are equal on all ranks; what one rank alone knows travels in `Flags` first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

if __name__ == "__main__" and importlib.util.find_spec("horovod") is None:
    # `python` may be the system's (a launcher named by its path, no activation): go on in the project's own.
    own_python = Path(__file__).resolve().parent / ".venv" / "bin" / "python"
    if own_python.exists():
        os.execv(own_python, [str(own_python), *sys.argv])

import time
import traceback
from typing import TYPE_CHECKING

from hvd_dqn.cli.arguments import parse
from hvd_dqn.counters import crossed
from hvd_dqn.distributed.launcher import Launch, read_launch
from hvd_dqn.distributed.runtime import Runtime, prepare_environment, start
from hvd_dqn.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE, EXIT_USER_ERROR, UserError
from hvd_dqn.run.directory import check_checkpoint_path, read_config_of
from hvd_dqn.run.status import tell
from hvd_dqn.run.stopping import StopRequest

if TYPE_CHECKING:
    from hvd_dqn.config import Config
    from hvd_dqn.elastic.recovery import Meeting
    from hvd_dqn.elastic.state import Kept
    from hvd_dqn.envs.collector import Episode
    from hvd_dqn.training.job import Job

_HURRIED_SECONDS = 1.0
"""For a checkpoint that is being written when a rank is lost: a part of it may never come."""

# NumPy and TensorFlow are imported inside the functions below: after the thread pools' sizes are set, and never for
# --help or a mistyped flag.


def train(job: Job) -> bool:  # noqa: PLR0912, PLR0915 the whole algorithm, on a screen and a half
    """Runs iterations until the env steps are done; returns False if a signal or the time ended the run earlier.

    Raises:
      JobFault: on all ranks, if an environment fails, a gradient is not finite or the ranks' weights differ.
      MembersChanged: on all ranks, if an elastic launcher has other hosts for the job.
    """
    import numpy as np

    from hvd_dqn.checkpoint.save import settle_or_warn
    from hvd_dqn.distributed.agreement import raise_fault_on_any_rank
    from hvd_dqn.elastic.snapshot import commit_if_due
    from hvd_dqn.learner.policy import epsilon_greedy_actions
    from hvd_dqn.training.faults import describe
    from hvd_dqn.training.job import Flags
    from hvd_dqn.training.learning import learn
    from hvd_dqn.training.records import log_training

    config, counters, learner, communicator = job.config, job.counters, job.learner, job.communicator
    num_envs, total_env_steps = config.environment.num_envs, config.job.total_env_steps
    lagging = config.learner.policy_lag > 0
    while counters.env_steps < total_env_steps:
        job.watchdog.beat("collecting")
        env_steps_before, fault = counters.env_steps, None
        episodes: list[Episode] = []
        with job.profile.iteration():
            if lagging:
                # All ranks: learn from the iterations before this one, while this one collects.
                due = counters.learner_steps_due(config.learner.train_period)
                learning = job.worker.submit(learn, job, due, np.zeros(len(Flags()), np.float32), True)  # COLLECTIVE

            # Collect. All ranks: one step in each of this rank's environments, into this rank's replay.
            with job.profile.phase("collect"):
                epsilon = job.exploration.epsilon(counters.env_steps, counters.episodes)
                q = job.acting_values(job.collector.observation)  # [E, A]
                actions = epsilon_greedy_actions(q, job.exploration.per_env(epsilon), job.policy_rng)  # [E]
                try:
                    transitions, episodes = job.collector.step(actions)
                except Exception as error:
                    fault = describe(error)
            job.watchdog.beat("learning")
            if lagging:
                report, skipped = learning.result()
            if fault is None:
                job.replay.add(transitions)
            counters.env_steps += num_envs
            job.finished_episodes += [(counters.env_steps, *episode) for episode in episodes]

            # Learn. All ranks: K updates in one call; the flags ride along, or travel alone where K is 0.
            failed = job.writing is not None and job.writing.failed
            own_flags = Flags(job.stop.requested, fault is not None, len(episodes), failed, job.members.changed)
            flags = np.array(own_flags, np.float32)
            if lagging:
                stop, faults, ended, unsaved, changed = Flags(*communicator.sum(flags))  # COLLECTIVE
            else:
                due = counters.learner_steps_due(config.learner.train_period)
                report, skipped = learn(job, due, flags, fault is None)  # COLLECTIVE
                stop, faults, ended, unsaved, changed = Flags(*report.signals)
            counters.learner_steps += report.steps
            counters.skipped_updates += skipped
            counters.episodes += round(ended)
            job.averages.add(report.steps, report.loss, report.priority, report.mean_q)
            if report.steps > 0:
                job.acting_values.load(learner.online)
            if faults:
                raise_fault_on_any_rank(communicator, fault)  # COLLECTIVE
            if unsaved:
                settle_or_warn(job)  # COLLECTIVE

            # Target. Rank 0's online network becomes everyone's target network.
            target_period = config.learner.target_update_period
            if crossed(counters.learner_steps - report.steps, counters.learner_steps, target_period):
                learner.load_target(communicator.broadcast(learner.online))  # COLLECTIVE
                counters.target_updates += 1

        # Report, evaluate, save, commit, stop: due at steps that all ranks compute alike.
        ending = counters.env_steps >= total_env_steps
        if ending or crossed(env_steps_before, counters.env_steps, config.job.log_period):
            log_training(job)  # COLLECTIVE
        if stop or not evaluate_and_save(job, env_steps_before):  # COLLECTIVE
            return False
        commit_if_due(job, env_steps_before, changed > 0)  # COLLECTIVE
    return True


def evaluate_and_save(job: Job, env_steps_before: int) -> bool:
    """Evaluates and checkpoints where due; returns False if the job is to stop here. A collective."""
    config, counters, since = job.config, job.counters, time.monotonic()
    ending = counters.env_steps >= config.job.total_env_steps
    score, better = None, False
    period = config.evaluation.evaluation_period
    if crossed(env_steps_before, counters.env_steps, period) or (ending and period > 0):
        from hvd_dqn.training.evaluation import evaluate
        from hvd_dqn.training.records import log_evaluation

        returns = evaluate(
            job, job.learner.online, "evaluation", counters.env_steps, config.evaluation.evaluation_episodes
        )  # COLLECTIVE
        if returns is None:
            return False
        score = float(returns.mean())
        log_evaluation(job, returns)
        better = job.best_score is None or score > job.best_score
        job.best_score = score if better else job.best_score
    if better or ending or crossed(env_steps_before, counters.env_steps, config.job.checkpoint_period):
        import numpy as np

        from hvd_dqn.checkpoint.save import save, settle
        from hvd_dqn.elastic.snapshot import commit
        from hvd_dqn.training.assembly import reset_environments

        save(job, score)  # COLLECTIVE
        if ending:
            settle(job)  # COLLECTIVE
        elif job.communicator.sum(np.array([float(job.stop.at_checkpoint)]))[0]:  # COLLECTIVE
            return False
        # A checkpoint is an episode boundary here as in a job that goes on from it: both see the same future.
        reset_environments(job, occasion=counters.env_steps)
        commit(job)
    job.speed.leave_out(time.monotonic() - since)
    return True


def finish(job: Job) -> None:
    """Evaluates the best checkpoint on fresh episodes and prints the closing summary. A collective."""
    from hvd_dqn.checkpoint.restore import best_parameters
    from hvd_dqn.run.report import closing_summary
    from hvd_dqn.training.evaluation import evaluate
    from hvd_dqn.training.records import write_record

    seconds = time.monotonic() - job.started
    env_steps, parameters = best_parameters(job)  # COLLECTIVE
    returns = evaluate(
        job, parameters, "final-evaluation", 0, job.config.evaluation.final_evaluation_episodes
    )  # COLLECTIVE
    if returns is None:
        job.display.message(f"stopped during the final evaluation; the run is saved in {job.directory.path}")
        return
    text, record = closing_summary(
        run_directory=job.directory.path,
        seconds=seconds,
        env_steps=job.counters.env_steps,
        learner_steps=job.counters.learner_steps,
        best_env_steps=env_steps,
        returns=returns,
        env_id=job.config.environment.env,
        ranks=job.communicator.size,
    )
    write_record(job, "final_evaluation", record)
    job.display.close()
    job.display.message(text)


def run(config: Config, runtime: Runtime, stop: StopRequest) -> int:
    """Runs the job and returns the exit code; under an elastic launcher with whatever ranks there are. A collective.

    Raises:
      UserError: on all ranks.
    """
    from hvd_dqn.elastic.recovery import Meeting, dismiss, meet, rescue
    from hvd_dqn.elastic.state import Kept
    from hvd_dqn.training.assembly import assemble

    kept, meeting = Kept(), Meeting()
    while True:
        job, lost = None, False
        try:
            meeting = meet(runtime, kept, stop)  # COLLECTIVE
            stop_in_time(config, runtime, stop)  # COLLECTIVE
            job = assemble(config, runtime, stop, sys.argv, kept)  # COLLECTIVE
            return work(job, config, meeting)  # COLLECTIVE
        except Exception as error:
            dismissed = job is None and isinstance(error, UserError) and dismiss(meeting, kept, error)
            lost = dismissed or runtime.members.lost(error)
            if not lost:
                raise
            runtime.members.leave(error)
            rescue(job, kept)
        finally:
            close(job, kept, lost)
        runtime.members.rejoin()  # COLLECTIVE


def stop_in_time(config: Config, runtime: Runtime, stop: StopRequest) -> None:
    """Has the job asked to stop before its time limit, as rank 0 knows it. A collective.

    Raises:
      UserError: on all ranks, before there is a run directory.
    """
    from hvd_dqn.distributed.agreement import on_root
    from hvd_dqn.run.time_limit import seconds_left

    running_for = time.monotonic() - stop.started
    left = on_root(runtime.communicator, lambda: seconds_left(config.job.time_limit, running_for))  # COLLECTIVE
    if left is not None:
        reserve = config.job.time_reserve_seconds
        stop.request_in(left - reserve, patience=reserve / 2, reason="time limit")


def work(job: Job, config: Config, meeting: Meeting) -> int:
    """Brings the assembled job to where it goes on, trains, and returns the exit code. A collective.

    Raises:
      UserError: on all ranks.
    """
    from hvd_dqn.checkpoint.restore import restore
    from hvd_dqn.checkpoint.save import save, save_metrics, settle
    from hvd_dqn.elastic.recovery import take_over
    from hvd_dqn.elastic.snapshot import begin_commits
    from hvd_dqn.training.assembly import record_run, reset_environments

    job.watchdog.start()
    if meeting.source is None:
        restore(job)  # COLLECTIVE
    else:
        take_over(job, meeting)  # COLLECTIVE
    job.kept.members = meeting.names
    record_run(job, config, sys.argv)  # COLLECTIVE
    if job.communicator.rank == 0:
        tell("run_directory", job.directory.path.resolve())
    reset_environments(job, occasion=job.counters.env_steps)
    begin_commits(job)
    if train(job):
        finish(job)  # COLLECTIVE
        save_metrics(job)  # COLLECTIVE
        return EXIT_DONE
    if job.writing is None or job.writing.env_steps != job.counters.env_steps:
        save(job, score=None)  # COLLECTIVE
    settle(job)  # COLLECTIVE
    job.display.close()
    place = str(job.directory.path) + (f", or from anywhere {job.store.folder}" if job.saves_elsewhere else "")
    job.display.message(f"stopped and saved at env step {job.counters.env_steps:,}; go on with: --resume {place}")
    return EXIT_REQUEUE


def close(job: Job | None, kept: Kept, lost: bool) -> None:
    """Ends what a job has opened, however far it came; in a hurry where ranks that are left wait for this one."""
    from hvd_dqn.checkpoint.save import abandon
    from hvd_dqn.training.records import write_profile

    if job is not None:
        job.watchdog.stop()
        abandon(job, *([_HURRIED_SECONDS] if lost else []))
        job.claim.release()
        write_profile(job)
        job.display.close()
        job.metrics.close()
        job.worker.close()
        job.evaluation.close()
        job.collector.close()
    if kept.directory is not None:
        if not lost:
            kept.directory.discard_unbegun()
        kept.directory.release()


def refuse(error: UserError, launch: Launch, stop: StopRequest) -> int:
    """Reports a mistake found before the ranks have met: once, as all ranks find the same."""
    if launch.rank > 0:
        # Rank 0 speaks and leaves first; its launcher then ends the others. A rank that lives on was alone in
        # finding the mistake (another file on its host) and must speak.
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            if stop.requested:
                return EXIT_USER_ERROR
            time.sleep(0.05)
    print(f"train.py: {error}", file=sys.stderr, flush=True)
    if launch.rank == 0:
        tell("exit_code", EXIT_USER_ERROR)
    return EXIT_USER_ERROR


def main(arguments: list[str]) -> int:
    """Runs the job on this rank and returns its exit code."""
    launch = read_launch()
    stop = StopRequest()
    stop.install()
    try:
        config = parse(arguments, read_config_of, quiet=launch.rank > 0)
        # A rank that comes later finds what the others have saved: where a run begins, the ranks look together.
        check_checkpoint_path(config.job.checkpoint_path, bool(config.job.resume) or launch.elastic, launch.size)
    except UserError as error:
        return refuse(error, launch, stop)
    job = config.job
    threads = prepare_environment(launch, job.threads_per_rank, job.stall_timeout_seconds, job.bind_to_cores)
    runtime = start(launch, threads, job.device, job.profile)  # COLLECTIVE
    communicator = runtime.communicator
    try:
        code = run(config, runtime, stop)  # COLLECTIVE
    except UserError as error:
        if communicator.rank == 0:
            print(f"train.py: {error}", file=sys.stderr, flush=True)
        code = EXIT_USER_ERROR
    except Exception:
        print(f"train.py: rank {communicator.rank} failed; the job ends", file=sys.stderr)
        traceback.print_exc()
        sys.stderr.flush()
        communicator.abort(EXIT_FAILED)
    if communicator.rank == 0:
        tell("exit_code", code)
    communicator.barrier()  # COLLECTIVE: rank 0 has spoken before a launcher sees the first exit code and ends the rest
    communicator.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
