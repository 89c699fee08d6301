"""Logs training and evaluations: gathers what all ranks saw, writes and shows it on rank 0."""

from __future__ import annotations

from typing import Any

from hvd_dqn.distributed.agreement import check_same_weights
from hvd_dqn.envs.atari_scores import score_fields
from hvd_dqn.learner.learner import state_of
from hvd_dqn.run.profile import over_ranks, resident_bytes
from hvd_dqn.run.report import episodes_played, human_score
from hvd_dqn.training.evaluation import Played
from hvd_dqn.training.job import Job


def log_training(job: Job) -> None:
    """Writes and shows one line of training metrics, after checking that all ranks hold the same state; a collective.

    Raises:
      JobFault: on all ranks, if weights, target or optimizer state differ.
    """
    check_same_weights(job.communicator, state_of(job.learning.learner).values())  # COLLECTIVE
    counters, records, acting = job.counters, job.records, job.acting
    speed = records.speed.take(counters.env_steps, counters.learner_steps)
    own: dict[str, Any] = {
        "episodes": acting.finished_episodes,
        "phases": records.profile.take(),
        "resident_bytes": resident_bytes(),
        "env_steps_per_second": speed["env_steps_per_second"],
    }
    for contribution in records.contributions:
        own |= contribution.local()
    parts = job.communicator.gather_json(own)  # COLLECTIVE
    acting.finished_episodes = []
    records.recent.add([episode for part in parts for episode in part["episodes"]])
    record = {
        "learner_steps": counters.learner_steps,
        "skipped_updates": counters.skipped_updates,
        "target_updates": counters.target_updates,
        "episodes": counters.episodes,
        **records.recent.summary(),
        "learning_rate": job.learning.learner.learning_rate,
        "epsilon": acting.exploration.epsilon(counters.env_steps, counters.episodes),
        **records.averages.take(),
        **speed,
        **over_ranks([part["phases"] for part in parts]),
        "resident_mebibytes": max(part["resident_bytes"] for part in parts) / 2**20,
    }
    for contribution in records.contributions:
        record |= contribution.summarize(parts)
    records.take_films()
    records.display.update(records.write("training", counters.env_steps, record))


def log_evaluation(job: Job, played: Played) -> None:
    """Writes and shows one evaluation's mean return."""
    returns = played.returns
    mean = float(returns.mean())
    record = {"mean_return": mean, "std_return": float(returns.std()), "episodes": len(returns)}
    known = score_fields(job.config.environment.env, mean)
    job.records.write("evaluation", job.counters.env_steps, record | known | played.value_fields())
    job.records.display.message(
        f"evaluation at env step {job.counters.env_steps:,}: mean return {mean:.2f} over "
        f"{episodes_played(len(returns), job.config.evaluation.evaluation_epsilon)}{human_score(known)}"
    )
