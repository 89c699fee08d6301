"""Evaluates a trained agent over any number of ranks, apart from any training."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from hvd_dqn.config import Config
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.distributed.watchdog import watchdog_of
from hvd_dqn.envs.greedy import GreedyEvaluation
from hvd_dqn.errors import EXIT_DONE, EXIT_REQUEUE
from hvd_dqn.run.report import episodes_played, human_score, mean_fields, mean_return
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.statistics import interquartile_mean
from hvd_dqn.training.evaluation import Evaluation
from hvd_dqn.training.trained import load_trained


def evaluate_run(
    place: str, config: Config, which: str, episodes: int, *, as_json: bool, runtime: Runtime, stop: StopRequest
) -> int:
    """Plays episodes of a run's agent, split over the ranks, and prints the result; a collective.

    Random actions have the run's --evaluation-epsilon.
    Episode i has the same seed at any number of ranks, and none that training or its evaluations use.

    Args:
      place: the run directory or checkpoint path.
      config: the configuration of the run.
      which: best, last, or the env steps of a checkpoint.
      episodes: how many.
      as_json: whether to print one JSON object alone.
      runtime: this rank, up.
      stop: the signals' request to stop.

    Returns:
      The exit code.

    Raises:
      UserError: on all ranks.
    """
    communicator = runtime.communicator
    limit = config.runtime.stall_timeout_seconds if communicator.size > 1 else 0.0
    trained = load_trained(place, config, which, communicator, limit)  # COLLECTIVE

    def warn(text: str) -> None:
        if communicator.rank == 0:
            print(f"warning: {text}", file=sys.stderr, flush=True)

    for line in trained.passed_over:
        warn(line)
    watchdog = watchdog_of(communicator, limit, trained.maker.calls)
    play = GreedyEvaluation(
        trained.maker.single,
        trained.values,
        trained.spaces.observation_dtype,
        step_limit=config.evaluation.evaluation_step_limit,
        epsilon=config.evaluation.evaluation_epsilon,
        warn=warn,
    )
    evaluation = Evaluation(communicator, watchdog, stop, play, trained.values, config.job.seed, lambda *_: None, warn)
    watchdog.start()
    try:
        played = evaluation.evaluate(trained.parameters, "evaluate", 0, episodes)  # COLLECTIVE
    finally:
        watchdog.stop()
        play.close()
    if played is None:
        return EXIT_REQUEUE
    returns = played.returns
    if communicator.rank == 0:
        found = summary(returns, config.environment.env)
        if as_json:
            print(json.dumps({"run": place, "env_steps": trained.env_steps, **found, "returns": returns.tolist()}))
        else:
            print(_text(place, config, trained.env_steps, found))
    return EXIT_DONE


def summary(returns: np.ndarray, env_id: str) -> dict[str, Any]:
    """Returns statistics of returns float64 [N], JSON-ready, with the human-normalised score if the game has one."""
    return mean_fields(returns, env_id) | {
        "interquartile_mean": interquartile_mean(returns),
        "median": float(np.median(returns)),
        "min": float(returns.min()),
        "max": float(returns.max()),
    }


def _text(place: str, config: Config, env_steps: int, found: dict[str, Any]) -> str:
    played = episodes_played(found["episodes"], config.evaluation.evaluation_epsilon)
    return (
        f"{place} at env step {env_steps:,}: {played} of {config.environment.env}\n"
        f"  {mean_return(found)}{human_score(found)}\n"
        f"  interquartile mean {found['interquartile_mean']:.2f}, median {found['median']:.2f}, "
        f"min {found['min']:.2f}, max {found['max']:.2f}"
    )
