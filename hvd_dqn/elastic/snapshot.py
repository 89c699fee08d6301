"""Commits under an elastic launcher: all ranks make them at the same steps, each for itself, without a word."""

from __future__ import annotations

import time

from hvd_dqn.checkpoint.save import settle_or_warn
from hvd_dqn.counters import crossed
from hvd_dqn.elastic.membership import MembersChanged
from hvd_dqn.elastic.state import Commit
from hvd_dqn.learner.learner import state_of
from hvd_dqn.training.job import Job

_FIRST = 5


def commit(job: Job) -> None:
    """Copies what all ranks share, so that those that stay can come back to it."""
    if not job.members.elastic:
        return
    since = time.perf_counter()
    job.kept.commit = Commit(
        job.kept.generation,
        job.counters.env_steps,
        state_of(job.learner),
        job.shared_state(),
        list(job.finished_episodes),
    )
    job.commits.add_cost(time.perf_counter() - since)


def begin_commits(job: Job) -> None:
    """Makes the first commits, several, to learn what one costs."""
    for _ in range(_FIRST):
        commit(job)


def commit_if_due(job: Job, env_steps_before: int, changed: bool) -> None:
    """Makes a commit if its time has come; before the ranks meet others that is now. A collective.

    Args:
      job: the job.
      env_steps_before: env steps before this iteration.
      changed: whether any rank has been told of other hosts, equal on all.

    Raises:
      MembersChanged: on all ranks, if so.
    """
    env_steps = job.counters.env_steps
    if not job.members.elastic or env_steps >= job.config.job.total_env_steps:
        return  # the commit of the last checkpoint is the last; a newcomer would find nothing to do
    if changed or crossed(env_steps_before, env_steps, job.commits.period):
        commit(job)
    if changed:
        settle_or_warn(job)  # COLLECTIVE
        raise MembersChanged


def choose_period(job: Job, cost_seconds: float, env_steps_per_second: float) -> dict[str, float]:
    """Lets the schedule choose anew, and says so once it knows learning's speed.

    Args:
      job: the job.
      cost_seconds: of a commit, equal on all ranks.
      env_steps_per_second: equal on all ranks.

    Returns:
      What the metrics tell of it.
    """
    if not job.members.elastic:
        return {}
    schedule = job.commits
    schedule.choose(cost_seconds, env_steps_per_second)
    if not schedule.said and job.counters.learner_steps > 0:
        schedule.said = True
        job.display.message(
            f"a commit takes {1e3 * cost_seconds:.3f} ms and is made every {schedule.period:,} env steps: "
            f"{cost_seconds * env_steps_per_second / schedule.period:.2%} of the time"
        )
    return {"snapshot_milliseconds": 1e3 * cost_seconds, "snapshot_period": schedule.period}
