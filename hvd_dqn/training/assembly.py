"""The composition root: builds every object of a rank and passes it in."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.checkpoint.open_store import open_checkpoint_store
from hvd_dqn.config import Config, flatten
from hvd_dqn.distributed.agreement import check_same_job, raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.distributed.watchdog import watchdog_of
from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.greedy import GreedyEvaluation
from hvd_dqn.envs.return_range import ReturnRange
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import UserError
from hvd_dqn.fingerprint import code_digest, versions
from hvd_dqn.learner.policy import Exploration
from hvd_dqn.learner.served_async import AsynchronousLearner
from hvd_dqn.networks.spec import flattens_images
from hvd_dqn.replay.base import Replay
from hvd_dqn.replay.prioritized import PrioritizedReplay
from hvd_dqn.run.heartbeat import make_heartbeat
from hvd_dqn.run.profile import IterationProfile
from hvd_dqn.run.report import late_to_save, start_report
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.seeding import generator
from hvd_dqn.shares import first_index, share
from hvd_dqn.strategies import describe, updates_alone
from hvd_dqn.training.acting import Acting
from hvd_dqn.training.agent import Agent, build_agent
from hvd_dqn.training.asynchronous import AsynchronousUpdates
from hvd_dqn.training.environments import find_environment
from hvd_dqn.training.evaluation import Evaluation
from hvd_dqn.training.hooks import make_hooks
from hvd_dqn.training.job import Job, Learning, Updates
from hvd_dqn.training.local_updates import LocalUpdates
from hvd_dqn.training.memory import check_memory, replay_too_large
from hvd_dqn.training.open_records import open_records
from hvd_dqn.training.overlap import InlineWorker, ThreadWorker
from hvd_dqn.training.parts import check_parts, configured, find_replay
from hvd_dqn.training.priorities import Priorities
from hvd_dqn.training.run_directory import RunDirectoryHandle
from hvd_dqn.training.updates import OverlappedUpdates, UpdatesAfterCollecting
from hvd_dqn.training.value_range import ValueRange
from hvd_dqn.validation import Shares, scale, shares

LEARNERS = {
    "tensorflow": "tensorflow (any algorithm and network)",
    "native": "native (C on the CPU)",
}
"""The learners as the start report shows them."""

_SAVED_AT_ONCE_MEBIBYTES = 200
"""Of new transitions that a rank compresses and writes in about a second."""


def assemble(
    config: Config,
    runtime: Runtime,
    stop: StopRequest,
    command: list[str],
    handle: RunDirectoryHandle | None = None,
    *,
    stream: tuple[int, ...] = (),
    grace_seconds: float = 0.0,
) -> Job:
    """Builds the job; a collective: all ranks call it, and what fails on one fails on all.

    Args:
      config: the configuration as the user gave it.
      runtime: this rank, up.
      stop: the signals' request to stop.
      command: the command line; its first word is the entry point's file.
      handle: takes the run directory, or has it already.
      stream: added to the address of each random stream.
      grace_seconds: added to the watchdog's limit.

    Raises:
      UserError: on all ranks.
    """
    communicator = runtime.communicator
    rank, size = communicator.rank, communicator.size
    config = scale(config, size)
    own = shares(config, rank, size)
    raise_on_any_rank(communicator, lambda: _check_device(runtime))  # COLLECTIVE
    alone = size == 1 and runtime.servers is None  # a lone rank waits for no other
    limit = 0.0 if alone else config.runtime.stall_timeout_seconds
    limit += grace_seconds if limit else 0.0
    maker, spaces = raise_on_any_rank(communicator, lambda: find_environment(config, communicator, limit))  # COLLECTIVE
    algorithm, own_code = raise_on_any_rank(communicator, lambda: check_parts(config, spaces))  # COLLECTIVE
    check_same_job(communicator, _fingerprint(config, runtime, spaces, command) | own_code)  # COLLECTIVE
    memory = check_memory(config, own, spaces, communicator, may_refuse=not stream)  # COLLECTIVE
    seeds = EpisodeSeeds(config.job.seed, first_index(config.environment.num_envs, rank, size), stream)
    return_range = ReturnRange(own.num_envs_per_rank, config.algorithm.gamma) if algorithm.has_value_range else None
    collector = raise_on_any_rank(
        communicator,
        lambda: configured(
            Collector,
            config,
            vector_env=maker.vector(own.num_envs_per_rank, seeds.first_env),
            spaces=spaces,
            seeds=seeds,
            return_range=return_range,
        ),
    )  # COLLECTIVE
    replay_rng = generator(config.job.seed, "replay", rank, *stream)
    replay = raise_on_any_rank(communicator, lambda: _build_replay(config, own, spaces, replay_rng))  # COLLECTIVE
    profile = IterationProfile(traced=config.runtime.profile)
    agent = build_agent(config, runtime, spaces, profile)  # COLLECTIVE
    directory = (handle or RunDirectoryHandle()).open(config, communicator)  # COLLECTIVE
    records = open_records(config, communicator, directory, profile)  # COLLECTIVE
    records.display.message(f"hvd_dqn on {config.environment.env}, run directory {directory.path}")
    records.display.message(
        start_report(
            _derived_sizes(config, runtime, agent, spaces)
            | maker.about(config.job.total_env_steps)
            | {"memory": memory.description}
        )
    )
    if memory.warning:
        records.display.warn(memory.warning)
    replay_mebibytes = own.replay_capacity_per_rank * spaces.transition_form.stored_bytes / 2**20
    if size > 1 and replay_mebibytes > _SAVED_AT_ONCE_MEBIBYTES:
        records.display.warn(late_to_save(f"the replay grows to {replay_mebibytes:,.0f} MiB per rank"))
    if flattens_images(agent.network, config.network.network, spaces.network_shape):
        records.display.warn(
            f"observations of shape {spaces.network_shape} are flattened for an MLP, as they are no integers: if "
            "they are images, give --network cnn, or convert them to uint8 in a wrapper, which takes less memory"
        )
    if return_range:
        support = config.algorithm.value_min, config.algorithm.value_max
        records.contributions.append(ValueRange(return_range, *support, records.display.warn))
    if isinstance(replay, PrioritizedReplay):
        records.contributions.append(Priorities(replay))
    heartbeat = make_heartbeat(communicator.local_rank)
    watchdog = watchdog_of(communicator, limit, maker.calls, directory.waiting, heartbeat)
    checkpoints = open_checkpoint_store(
        config.job.checkpoint_path,
        directory.checkpoints,
        config.job.keep_checkpoints,
        metrics=directory.metrics,
        communicator=communicator,
        watchdog=watchdog,
        message=records.display.message,
    )  # COLLECTIVE
    evaluated_values = agent.action_values(False)
    play = GreedyEvaluation(
        maker.single,
        evaluated_values,
        spaces.observation_dtype,
        step_limit=config.evaluation.evaluation_step_limit,
        epsilon=config.evaluation.evaluation_epsilon,
        gamma=config.algorithm.gamma,
        clip_rewards=config.environment.clip_rewards,
        warn=records.display.warn,
    )
    updates = _make_updates(config, runtime, agent)
    records.contributions += updates.contributions
    return Job(
        config=config,
        communicator=communicator,
        watchdog=watchdog,
        stop=stop,
        directory=directory,
        acting=Acting(
            collector,
            _build_exploration(config, communicator, own.num_envs_per_rank),
            agent.action_values(config.learner.policy_lag == 0),
            generator(config.job.seed, "policy", rank, *stream),
        ),
        learning=Learning(
            agent.learner,
            agent.chosen,
            replay,
            replay_rng,
            own.batch_size_per_rank,
            updates,
            updates.target_update_period(config.learner.target_update_period),
            long_seconds=limit / 4 or math.inf,
        ),
        evaluation=Evaluation(
            communicator,
            watchdog,
            stop,
            play,
            evaluated_values,
            config.job.seed,
            records.display.tick,
            records.display.warn,
        ),
        checkpoints=checkpoints,
        records=records,
        hooks=make_hooks(config),
        stream=stream,
    )


def _check_device(runtime: Runtime) -> None:
    """Refuses to start without a device for this rank."""
    if runtime.no_device:
        raise UserError(runtime.no_device)


def _build_replay(config: Config, own: Shares, spaces: Spaces, rng: np.random.Generator) -> Replay:
    try:
        replay: Replay = configured(
            find_replay(config),
            config,
            capacity=own.replay_capacity_per_rank,
            form=spaces.transition_form,
            rng=rng,
        )
    except (MemoryError, ValueError) as error:  # NumPy raises ValueError for more than an address can reach
        raise UserError(f"{replay_too_large(own, spaces)} ({error})") from None
    return replay


def _fingerprint(config: Config, runtime: Runtime, spaces: Spaces, command: list[str]) -> dict[str, Any]:
    """Returns what must be equal on all ranks."""
    code = code_digest(Path(command[0]))
    device = "a GPU" if runtime.on_gpu else "the CPU"
    return {**flatten(config), **versions(), "code": code, **spaces.describe(), "computes on": device}


def _make_updates(config: Config, runtime: Runtime, agent: Agent) -> Updates:
    """Follows --strategy; gives overlapping learner steps a thread of their own where a core is free for it."""
    if isinstance(agent.learner, AsynchronousLearner):
        return AsynchronousUpdates(runtime.servers, agent.learner)
    if updates_alone(config, runtime.communicator.size):
        return LocalUpdates(config.strategy.sync_period)
    if config.learner.policy_lag == 0:
        return UpdatesAfterCollecting()
    return OverlappedUpdates(ThreadWorker() if runtime.threads > 1 else InlineWorker())


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


def _derived_sizes(config: Config, runtime: Runtime, agent: Agent, spaces: Spaces) -> dict[str, Any]:
    """Returns what follows from the configuration at this number of ranks, for the start report."""
    size = runtime.communicator.size
    environments = config.environment.num_envs
    batch, capacity = config.replay.global_batch_size, config.replay.replay_capacity
    end = config.learner.learning_rate_end
    communicator = runtime.communicator
    masks = {"action masks": f"from the {spaces.mask_source} of {config.environment.env}"} if spaces.masked else {}
    stacked = spaces.stacked_frames
    frames = {"frames": f"{stacked} in an observation, each stored once"} if stacked > 1 else {}
    return {
        "ranks (W)": f"{size}, controller {communicator.controller}",
        "device per rank": runtime.device,
        "network": f"{agent.network}, {agent.learner.layout.total:,} parameters",
        "learner": LEARNERS[agent.chosen],
        "strategy": describe(config, agent.chosen, size),
        "environments": f"{environments} = {_per_rank(environments, size)} per rank",
        **masks,
        "rewards": "clipped to -1..1 for learning; returns are the environment's own"
        if config.environment.clip_rewards
        else "the environment's own",
        "batch": f"{batch} = {_per_rank(batch, size)} per rank",
        "replay capacity": f"{capacity:,} = {_per_rank(capacity, size)} per rank, "
        f"{capacity * spaces.transition_form.stored_bytes / 2**20:,.0f} MiB of memory in all when full",
        **frames,
        "learner steps per iteration": f"{environments / config.learner.train_period:g} "
        f"({environments} env steps, one learner step per {config.learner.train_period})",
        "learning rate": f"{config.learner.learning_rate:g} ({config.learner.scaling} scaling)"
        + (f", at the end {config.learner.learning_rate * end:g}" if end != 1.0 else ""),
    }


def _per_rank(amount: int, size: int) -> str:
    """Returns the ranks' shares of an amount in a few words."""
    counts = Counter(share(amount, rank, size) for rank in range(size))
    return " and ".join(f"{part:,}" + (f" (x{count})" if size > 1 else "") for part, count in counts.items())
