#!/usr/bin/env python
"""Searches for settings by Optuna: `pip install optuna`, then `python examples/tune.py --trials 20`.

Several processes search together if they have the same --storage, a file in a folder that all of them see: start this
program several times, or as an array of Slurm: `sbatch --array 0-7 --wrap "python examples/tune.py --trials 10"`. A
trial whose evaluations fall behind those of the others is stopped early.
"""

from __future__ import annotations

import argparse
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import hvd_dqn


def objective(trial: optuna.Trial, preset: str, env_steps: int, runs_dir: str) -> float:
    """Trains with the settings that the trial suggests, and returns the mean of the last three evaluations."""
    returns: list[float] = []
    pruned = False

    def follow(record: dict[str, Any]) -> bool:
        nonlocal pruned
        if record["kind"] == "evaluation":
            returns.append(record["mean_return"])
            trial.report(record["mean_return"], record["env_steps"])
            pruned = trial.should_prune()
        return not pruned

    hvd_dqn.train(
        preset=preset,
        total_env_steps=env_steps,
        evaluation_period=env_steps // 20,
        seed=trial.number,
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        n_step=trial.suggest_int("n_step", 1, 5),
        target_update_period=trial.suggest_int("target_update_period", 20, 2_000, log=True),
        double=trial.suggest_categorical("double", [False, True]),
        name=f"trial-{trial.number}",
        runs_dir=runs_dir,
        progress="off",
        callbacks=[follow],
    )
    if pruned:
        raise optuna.TrialPruned
    return sum(returns[-3:]) / len(returns[-3:])


def main() -> None:
    """Adds trials to the study and prints the best one so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cartpole")
    parser.add_argument("--env-steps", type=int, default=50_000, help="of each trial")
    parser.add_argument("--trials", type=int, default=10, help="of this process")
    parser.add_argument("--storage", default="tune.log", help="file of the study; the same file continues it")
    parser.add_argument("--runs-dir", default="runs-tune")
    arguments = parser.parse_args()
    study = optuna.create_study(
        study_name=arguments.preset,
        storage=JournalStorage(JournalFileBackend(arguments.storage)),
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    study.optimize(
        lambda trial: objective(trial, arguments.preset, arguments.env_steps, arguments.runs_dir), arguments.trials
    )
    finished = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if finished:
        print(f"best of {len(finished)} finished trials: {study.best_value:.1f} with {study.best_params}")


if __name__ == "__main__":
    main()
