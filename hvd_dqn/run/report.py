"""The reports that rank 0 prints before and after training."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.counters import Counters
from hvd_dqn.envs.atari_scores import score_fields
from hvd_dqn.statistics import bootstrap_interval

NEXT_VERBS = ("evaluate", "watch", "report", "export")
"""Verbs of hvd-dqn that the closing summary advises; each takes the run directory alone."""


def start_report(sizes: dict[str, Any]) -> str:
    """Formats the start report, one line per entry."""
    width = max(len(name) for name in sizes)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in sizes.items())


def closing_summary(
    *,
    run_directory: Path,
    seconds: float,
    begun: Counters,
    counters: Counters,
    best_env_steps: int | None,
    returns: np.ndarray,
    env_id: str,
    epsilon: float,
    launcher: list[str],
    program: str,
) -> tuple[str, dict[str, Any]]:
    """Formats the closing summary.

    Args:
      run_directory: the run directory.
      seconds: wall time of this job, evaluations included.
      begun: the run's counters when this job began or resumed it.
      counters: the run's counters now.
      best_env_steps: env steps of the evaluated checkpoint; None if the final weights were used.
      returns: float [N], returns of the final episodes.
      env_id: the environment, for the heading and for the human-normalised score, where it has one.
      epsilon: probability of a random action in these episodes.
      launcher: start of the command that resumes the run on as many ranks, which alone is exact.
      program: path of train.py.

    Returns:
      The text, and the same numbers as a metrics record.
    """
    known = mean_fields(returns, env_id)
    how = f"Evaluation with epsilon {epsilon:g}" if epsilon else "Greedy evaluation"
    which = "final weights" if best_env_steps is None else f"best checkpoint (env step {best_env_steps:,})"
    resume = [*launcher, program, "--resume", str(run_directory), "--total-env-steps", str(2 * counters.env_steps)]
    text = "\n".join(
        [
            "",
            f"{how} of the {which} over {len(returns)} new episodes of {env_id}:",
            f"  {mean_return(known)}, min {returns.min():.2f}, max {returns.max():.2f}{human_score(known)}",
            f"This job: {counters.env_steps - begun.env_steps:,} env steps and "
            f"{counters.learner_steps - begun.learner_steps:,} learner steps in {seconds:.1f} s, evaluations included. "
            f"The run: {counters.env_steps:,} env steps and {counters.learner_steps:,} learner steps.",
            f"Run directory: {run_directory}",
            "Next:",
            *(f"  {shlex.join([own_command('hvd-dqn'), verb, str(run_directory)])}" for verb in NEXT_VERBS),
            f"  {shlex.join([own_command('tensorboard'), '--logdir', str(run_directory)])}",
            f"  {shlex.join(resume)}",
        ]
    )
    return text, known | {"seconds": seconds}


def mean_fields(returns: np.ndarray, env_id: str) -> dict[str, Any]:
    """Returns the mean of returns float64 [N] with its interval, JSON-ready, and its human-normalised score, if any."""
    low, high = bootstrap_interval(returns)
    mean = float(returns.mean())
    fields = {"episodes": len(returns), "mean_return": mean, "low": low, "high": high}
    return fields | score_fields(env_id, mean)


def mean_return(record: Mapping[str, Any]) -> str:
    """Returns the mean return of `mean_fields` as a message shows it."""
    interval = f"95 % confidence interval {record['low']:.2f} to {record['high']:.2f}"
    return f"mean return {record['mean_return']:.2f}, {interval}"


def human_score(record: Mapping[str, Any]) -> str:
    """Returns a record's human-normalised score as it follows the mean return in a message; "" if it has none."""
    normalised = record.get("human_normalised")
    return "" if normalised is None else f", human-normalised {normalised:.3f} (0 random, 1 human)"


def episodes_played(count: int, epsilon: float) -> str:
    """Returns how many episodes an evaluation has played, and how."""
    return f"{count} episodes with epsilon {epsilon:g}" if epsilon else f"{count} greedy episodes"


def launcher_command(ranks: int, controller: str) -> list[str]:
    """Returns the start of a command that runs a Python program on some ranks."""
    python = own_command("python")
    if ranks == 1:
        return [python]
    launcher = ["mpirun"] if controller == "MPI" else ["horovodrun", "--gloo"]
    return [own_command(launcher[0]), *launcher[1:], "-np", str(ranks), python]


def own_command(name: str) -> str:
    """Returns the path of a command of this Python's environment, which works whether or not that is activated."""
    own = Path(sys.executable).with_name(name)
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)


def late_to_save(reason: str) -> str:
    """Returns the warning that a launcher may kill its ranks before they have saved, with what helps."""
    return (
        f"{reason}. mpirun and horovodrun kill their ranks 1 to 5 s after Ctrl-C or SIGTERM, perhaps before they have "
        "saved: send SIGUSR1 to mpirun, start by launch/local.sh, or give --time-limit"
    )
