#!/usr/bin/env python
"""Trains next-item recommenders on MovieLens, and compares them on other users: `python examples/movielens/run.py`.

Each finished run becomes a line of --results. A run that was interrupted resumes from its last checkpoint, and finished
runs are not repeated. All play sessions of users to whom the films were not fitted: simulated ones, and ones with the
ratings that these users gave. At the end the program prints a table, and draws it (`--plot docs/movielens.png`).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from next_item import NextItem
from ratings import LICENCE, WHEEL, download

import hvd_dqn
from hvd_dqn.statistics import bootstrap_interval

HERE = Path(__file__).parent
SETTINGS: dict[str, Any] = {
    "env": f"{HERE / 'next_item.py'}:NextItem-v0",
    "hidden_sizes": (64, 64),
    "double": True,
    "global_batch_size": 64,
    "train_period": 4,
    "learning_rate": 1e-3,
    "learning_rate_end": 0.05,
    "target_update_period": 200,
    "epsilon_decay_env_steps": 10_000,
    "epsilon_end": 0.05,
}
GAMMAS = {"dqn": 0.95, "myopic": 0.0}
Policy = Callable[[NextItem, np.ndarray, np.ndarray], np.ndarray]
"""Environment, observations [N, n] and masks [N, M] -> values [N, M], whose largest is recommended."""


def baselines(rng: np.random.Generator) -> dict[str, Policy]:
    """Returns what needs no training: random films, those with the most likes, the best rated, and the factor model."""
    return {
        "random": lambda env, seen, masks: rng.random(masks.shape),
        "popularity": lambda env, seen, masks: np.tile(env.model.likes, (len(seen), 1)),
        "mean rating": lambda env, seen, masks: np.tile(env.model.mean, (len(seen), 1)),
        "factors": lambda env, seen, masks: env.model.mean + seen[:, :-2] @ env.model.items.T,
    }


def agent(run: hvd_dqn.Run) -> Policy:
    """Returns a trained agent's policy."""
    return lambda env, seen, masks: run.action_values(np.concatenate([seen, masks], axis=1))


def play(policy: Policy, responses: str, seed: int, sessions: int) -> dict[str, Any]:
    """Plays sessions of held-out users.

    Args:
      policy: chooses the films.
      responses: simulated, or logged: then every user who rated enough films is played once.
      seed: of the first session.
      sessions: simulated ones.

    Returns:
      The mean return with its 95 % bootstrap interval over the users, and the coverage: exp of the entropy of what was
      recommended, the number of films if all were recommended equally often.
    """
    first = NextItem("held-out", responses)
    users = list(first.players) if responses == "logged" else [None] * sessions
    envs = [NextItem("held-out", responses) for _ in users]
    begun = [
        env.reset(seed=seed + i, options={"user": user}) for i, (env, user) in enumerate(zip(envs, users, strict=True))
    ]
    seen = np.array([observation for observation, _ in begun])
    masks = np.array([info["action_mask"] for _, info in begun])
    returns, shown = np.zeros(len(envs)), np.zeros(masks.shape[1])
    open_sessions = np.arange(len(envs))
    while len(open_sessions):
        values = policy(first, seen[open_sessions], masks[open_sessions])
        actions = np.where(masks[open_sessions] > 0, values, -np.inf).argmax(axis=1)
        np.add.at(shown, actions, 1)
        ended = np.zeros(len(open_sessions), np.bool_)
        for place, (i, action) in enumerate(zip(open_sessions, actions, strict=True)):
            seen[i], reward, ended[place], _, info = envs[i].step(action)
            masks[i] = info["action_mask"]
            returns[i] += reward
        open_sessions = open_sessions[~ended]
    shares = shown[shown > 0] / shown.sum()
    return {
        "mean_return": round(float(returns.mean()), 3),
        "interval": [round(bound, 3) for bound in bootstrap_interval(returns)],
        "coverage": round(float(np.exp(-(shares * np.log(shares)).sum())), 1),
    }


def measure(task: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains, where there is something to train, plays, and returns the line of the results."""
    since = time.monotonic()
    policies = baselines(np.random.default_rng(seed))
    curve: list[tuple[int, float]] = []
    if task in GAMMAS:
        period, sessions = arguments.env_steps // 10, min(100, arguments.sessions)
        run = hvd_dqn.train(
            **SETTINGS, gamma=GAMMAS[task], seed=seed, total_env_steps=arguments.env_steps, evaluation_period=period,
            checkpoint_period=period, evaluation_episodes=sessions, final_evaluation_episodes=sessions,
            runs_dir=arguments.runs_dir, name=f"{task}-{seed}", resume="auto", progress="off",
        )  # fmt: skip
        policies = {task: agent(hvd_dqn.load(run.place, checkpoint="last"))}
        lines = (Path(run.place) / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        curve = [(r["env_steps"], r["mean_return"]) for r in records if r["kind"] == "evaluation"]
    played = {
        kind: play(policies[task], kind, 1_000_000 * (seed + 1), arguments.sessions) for kind in ("simulated", "logged")
    }
    return {"task": task, "seed": seed, "seconds": round(time.monotonic() - since), **played, "curve": curve}


def read_results(path: Path) -> list[dict[str, Any]]:
    """Returns the finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(found: list[dict[str, Any]], tasks: list[str]) -> None:
    """Prints mean returns and coverage; the interval is over the seeds' sessions, and the lowest and highest seed's."""
    print(f"{'policy':<12}{'seeds':>5}  {'simulated (95 %)':<24}{'logged (95 %)':<24}coverage, simulated and logged")
    for task in tasks:
        runs = [r for r in found if r["task"] == task]
        if not runs:
            continue
        cells = []
        for kind in ("simulated", "logged"):
            mean = np.mean([r[kind]["mean_return"] for r in runs])
            low, high = np.mean([r[kind]["interval"] for r in runs], axis=0)
            cells.append(f"{mean:.2f} ({low:.2f} to {high:.2f})")
        coverage = " ".join(f"{np.mean([r[kind]['coverage'] for r in runs]):.0f}" for kind in ("simulated", "logged"))
        print(f"{task:<12}{len(runs):>5}  {cells[0]:<24}{cells[1]:<24}{coverage}")


def draw(found: list[dict[str, Any]], tasks: list[str], path: Path) -> None:
    """Draws the learning curves, and the mean returns of all policies."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 3.6), layout="constrained", width_ratios=(3, 2))
    for color, (task, gamma) in enumerate(GAMMAS.items()):
        curves = [np.array(r["curve"]) for r in found if r["task"] == task]
        if curves:
            values = np.array([curve[:, 1] for curve in curves])  # [seeds, points]
            steps = curves[0][:, 0]
            left.fill_between(steps, values.min(axis=0), values.max(axis=0), color=f"C{color}", alpha=0.15, linewidth=0)
            label = f"gamma {gamma} ({task}), {len(curves)} seeds"
            left.plot(steps, values.mean(axis=0), color=f"C{color}", label=label)
    left.set(title="MovieLens 100k", xlabel="env steps", ylabel="films liked in a session")
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    shown = [task for task in tasks if any(r["task"] == task for r in found)]
    for shift, kind in ((-0.2, "simulated"), (0.2, "logged")):
        means = [np.mean([r[kind]["mean_return"] for r in found if r["task"] == task]) for task in shown]
        right.barh(np.arange(len(shown)) + shift, means, height=0.36, label=f"{kind} responses")
    right.set(yticks=np.arange(len(shown)), yticklabels=shown, xlabel="films liked by held-out users")
    right.invert_yaxis()
    right.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measures what is missing, then reports and draws."""
    tasks = [*baselines(np.random.default_rng(0)), *GAMMAS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks, metavar="TASK")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--env-steps", type=int, default=30_000, help="of each run")
    parser.add_argument(
        "--sessions",
        type=int,
        default=1_000,
        help="simulated ones that every policy plays; up to 100 also during training",
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl", help="file of the lines")
    parser.add_argument("--runs-dir", default="runs/movielens")
    parser.add_argument("--plot", type=Path, help="picture to draw")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(LICENCE, flush=True)
    if not WHEEL.is_file():
        download()
    for seed in arguments.seeds:
        for task in arguments.tasks:
            if (task, seed) not in {(r["task"], r["seed"]) for r in read_results(arguments.results)}:
                line = json.dumps(measure(task, seed, arguments))
                with arguments.results.open("a") as file:
                    file.write(line + "\n")
                print(f"{task}, seed {seed}: done", flush=True)
    report(read_results(arguments.results), tasks)
    if arguments.plot:
        draw(read_results(arguments.results), tasks, arguments.plot)


if __name__ == "__main__":
    main()
