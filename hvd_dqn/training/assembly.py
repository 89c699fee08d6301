"""The composition root: builds every object of a rank and passes it in."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from hvd_dqn.checkpoint.files import write_json_atomically
from hvd_dqn.checkpoint.keepalive import patiently
from hvd_dqn.checkpoint.open_store import open_checkpoints
from hvd_dqn.checkpoint.segments import SegmentWriter
from hvd_dqn.config import RESUME_AUTO, Config, flatten
from hvd_dqn.distributed.agreement import check_same_job, on_root, raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.distributed.watchdog import Watchdog
from hvd_dqn.elastic.state import CommitSchedule, Kept
from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.greedy import GreedyEvaluation
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import UserError
from hvd_dqn.fingerprint import code_digest, git_revision, versions
from hvd_dqn.learner.policy import Exploration
from hvd_dqn.locations import is_url
from hvd_dqn.networks.build import choose_kind
from hvd_dqn.replay.ring import RingReplay
from hvd_dqn.run.directory import (
    CONFIG_FILE,
    RunDirectory,
    check_checkpoint_path,
    newest_checkpoint,
    read_config_of,
)
from hvd_dqn.run.metrics import DiskMetrics, MetricsWriter, NullMetrics
from hvd_dqn.run.profile import IterationProfile
from hvd_dqn.run.progress import Display, NullDisplay, make_display
from hvd_dqn.run.report import start_report
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.seeding import generator
from hvd_dqn.shares import first_index, share
from hvd_dqn.training.agent import Agent, build_agent, make_worker
from hvd_dqn.training.job import Job
from hvd_dqn.validation import environment_arguments, scale, shares


def assemble(config: Config, runtime: Runtime, stop: StopRequest, command: list[str], kept: Kept | None = None) -> Job:
    """Builds the job; a collective: all ranks call it, and what fails on one fails on all.

    Args:
      config: the configuration as the user gave it.
      runtime: this rank, up.
      stop: the signals' request to stop.
      command: the command line; its first word is the entry point's file.
      kept: what this rank has kept of a job with other ranks; it learns the run directory.

    Raises:
      UserError: on all ranks.
    """
    communicator, members, kept = runtime.communicator, runtime.members, kept or Kept()
    config = scale(config, communicator.size)
    own = shares(config, communicator.rank, communicator.size)
    raise_on_any_rank(communicator, lambda: _check_device(runtime))  # COLLECTIVE
    maker, spaces = raise_on_any_rank(communicator, lambda: _find_environment(config))  # COLLECTIVE
    kind = choose_kind(config.network.network, spaces.observation_shape, spaces.observation_dtype)
    fingerprint = {**flatten(config), **versions(), "code": code_digest(Path(command[0])), **spaces.describe()}
    fingerprint["computes on"] = "a GPU" if runtime.on_gpu else "the CPU"
    check_same_job(communicator, fingerprint)  # COLLECTIVE
    first_env = first_index(config.environment.num_envs, communicator.rank, communicator.size)
    seeds = EpisodeSeeds(config.job.seed, first_env, kept.stream)
    collector = raise_on_any_rank(
        communicator, lambda: Collector(maker.vector(own.num_envs_per_rank), spaces, seeds)
    )  # COLLECTIVE
    profile = IterationProfile(traced=config.job.profile)
    agent = build_agent(config, runtime, kind, spaces, own.batch_size_per_rank, profile)  # COLLECTIVE
    learner = agent.learner
    begins = kept.directory is None
    directory = kept.directory = kept.directory or _open_directory(config, communicator)  # COLLECTIVE
    on_root(communicator, lambda: _claim(directory))  # COLLECTIVE
    if begins and config.job.resume == RESUME_AUTO:
        on_root(communicator, lambda: directory.start_over(config.job.checkpoint_path))  # COLLECTIVE
    if config.job.profile:
        on_root(communicator, lambda: directory.profile.mkdir(exist_ok=True))  # COLLECTIVE
        communicator.start_timeline(directory.profile / "horovod.timeline.json")  # COLLECTIVE
    evaluated_values = agent.action_values(follow=False)
    metrics, display = _outputs(config, communicator, directory)
    display.message(f"hvd_dqn on {config.environment.env}, run directory {directory.path}")
    display.message(start_report(_derived_sizes(config, runtime, kind, agent)))
    store, claim = open_checkpoints(
        config.job.checkpoint_path, directory.checkpoints, config.job.keep_checkpoints, communicator, display
    )  # COLLECTIVE
    replay_rng = generator(config.job.seed, "replay", communicator.rank, *kept.stream)
    silence = config.job.stall_timeout_seconds and config.job.stall_timeout_seconds + members.silence_seconds
    return Job(
        config=config,
        communicator=communicator,
        members=members,
        kept=kept,
        commits=CommitSchedule(config.job.commit_period, config.job.log_period),
        stop=stop,
        watchdog=Watchdog(silence, communicator.rank, communicator.size, directory.waiting, communicator.abort),
        directory=directory,
        store=store,
        claim=claim,
        metrics=metrics,
        display=display,
        collector=collector,
        exploration=_build_exploration(config, communicator, own.num_envs_per_rank),
        policy_rng=generator(config.job.seed, "policy", communicator.rank, *kept.stream),
        replay_rng=replay_rng,
        acting_values=agent.action_values(follow=config.learner.policy_lag == 0),
        replay=RingReplay(
            own.replay_capacity_per_rank,
            spaces.observation_shape,
            spaces.observation_dtype,
            replay_rng,
        ),
        segments=SegmentWriter(store.replay_folder, communicator.rank, communicator.size),
        learner=learner,
        batch_size_per_rank=own.batch_size_per_rank,
        worker=make_worker(config, runtime, agent),
        profile=profile,
        evaluation=GreedyEvaluation(maker.single, evaluated_values, spaces.observation_dtype),
        evaluated_values=evaluated_values,
    )


def reset_environments(job: Job, occasion: int) -> None:
    """Starts all episodes anew, seeded by (seed, global environment, occasion).

    Args:
      job: the job.
      occasion: a number that is different at each reset of the run, so that no future repeats a past.
    """
    job.collector.reset(occasion)


def record_run(job: Job, config: Config, command: list[str]) -> None:
    """Writes config.json on rank 0; a collective. Called once nothing can refuse the run any more.

    Args:
      job: the job, restored.
      config: the configuration as the user gave it, before any weak scaling, so that it can be given again.
      command: the command line.

    Raises:
      UserError: on all ranks, if it cannot be written.
    """
    record = {
        "config": flatten(config) | {"resume": "", "allow_missing_replay": False},
        "ranks": job.communicator.size,
        "command": command,
        "versions": versions(),
        "git_revision": git_revision(),
        "unix_time": time.time(),
    }

    def write() -> None:
        if job.communicator.rank == 0:
            if job.saves_elsewhere:
                write_json_atomically(job.store.folder / CONFIG_FILE, record)
            job.directory.write_config(record)

    on_root(job.communicator, patiently(job, "writing the configuration", write))  # COLLECTIVE


def _check_device(runtime: Runtime) -> None:
    """Refuses to go on without a device for this rank."""
    if runtime.no_device:
        raise UserError(runtime.no_device)


def _find_environment(config: Config) -> tuple[EnvironmentMaker, Spaces]:
    environment = config.environment
    maker = EnvironmentMaker(environment.env, environment_arguments(config), environment.vectorization)
    return maker, maker.spaces()


def _build_exploration(config: Config, communicator: Communicator, num_envs_per_rank: int) -> Exploration:
    exploration = config.exploration
    return Exploration(
        exploration.epsilon_schedule,
        start=exploration.epsilon_start,
        end=exploration.epsilon_end,
        decay_env_steps=exploration.epsilon_decay_env_steps,
        decay_per_episode=exploration.epsilon_decay_per_episode,
        ladder=exploration.epsilon_ladder,
        num_envs=config.environment.num_envs,
        first_env=first_index(config.environment.num_envs, communicator.rank, communicator.size),
        num_envs_per_rank=num_envs_per_rank,
    )


def _open_directory(config: Config, communicator: Communicator) -> RunDirectory:
    """Creates or opens the run directory on rank 0 and tells all ranks where it is; a collective."""

    def create_or_open() -> str:
        job = config.job
        known = job.resume
        if job.resume == RESUME_AUTO:
            directory = RunDirectory.of(job.runs_dir, config.environment.env, job.name)
            begun = newest_checkpoint(directory.checkpoints_at(job.checkpoint_path)) is not None
            known = (job.checkpoint_path or str(directory.path)) if begun else ""
        if known:
            before = read_config_of(known)
            trained, saved_to = before.get("env"), before.get("checkpoint_path", "")
            if saved_to != job.checkpoint_path:
                raise UserError(
                    f"{known} saves to {saved_to or 'its own folder'}: leave --checkpoint-path out to go on with "
                    "it there; to move a run, copy its files and give --resume the new place"
                )
            if trained != config.environment.env:
                raise UserError(
                    f"{known} was trained on {trained}, not on {config.environment.env}: leave --env out to go on "
                    "with it, or --resume out to start anew"
                )
        check_checkpoint_path(job.checkpoint_path, bool(job.resume), communicator.size)
        if job.resume == RESUME_AUTO:
            directory.path.mkdir(parents=True, exist_ok=True)
        elif job.resume and not is_url(job.resume):
            directory = RunDirectory.open(job.resume)
        else:
            directory = RunDirectory.create(job.runs_dir, config.environment.env, job.name, job.resume)
        return str(directory.path)

    return RunDirectory(Path(on_root(communicator, create_or_open)))  # COLLECTIVE


def _claim(directory: RunDirectory) -> None:
    """Takes the directory for this job; rank 0 may be on another host now, on which it does not exist."""
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.claim()


def _outputs(config: Config, communicator: Communicator, directory: RunDirectory) -> tuple[MetricsWriter, Display]:
    """Opens rank 0's metrics and display; the other ranks get null objects."""
    opened: list[MetricsWriter] = []
    on_root(communicator, lambda: opened.append(DiskMetrics(directory.metrics, directory.tensorboard)))  # COLLECTIVE
    if communicator.rank == 0:
        return opened[0], make_display(config.job.progress, config.job.total_env_steps)
    return NullMetrics(), NullDisplay()


def _derived_sizes(config: Config, runtime: Runtime, kind: str, agent: Agent) -> dict[str, Any]:
    """Returns what follows from the configuration at this number of ranks, for the start report."""
    size = runtime.communicator.size
    environments = config.environment.num_envs
    batch, capacity = config.replay.global_batch_size, config.replay.replay_capacity
    communicator = runtime.communicator
    return {
        "ranks (W)": f"{size}, controller {communicator.controller}, gradients by {communicator.transport}",
        "device per rank": runtime.device,
        "network": f"{kind}, {agent.learner.layout.total:,} parameters, updated by {agent.backend}",
        "environments": f"{environments} = {_dealt(environments, size)} per rank",
        "batch": f"{batch} = {_dealt(batch, size)} per rank",
        "replay capacity": f"{capacity:,} = {_dealt(capacity, size)} per rank",
        "learner steps per iteration": f"{environments / config.learner.train_period:g} "
        f"({environments} env steps, one learner step per {config.learner.train_period})",
        "learning rate": f"{config.learner.learning_rate:g} ({config.learner.scaling} scaling)",
    }


def _dealt(amount: int, size: int) -> str:
    """Returns the ranks' shares of an amount in a few words."""
    counts = Counter(share(amount, rank, size) for rank in range(size))
    return " and ".join(f"{part:,}" + (f" (x{count})" if size > 1 else "") for part, count in counts.items())
