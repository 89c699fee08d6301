#!/usr/bin/env python
"""Collects the final evaluations of Atari runs as rliable takes them: algorithm -> array [runs, games].

    .venv/bin/python bench/human_scores.py runs/*/atari-* --output bench/results/atari.json

Runs of different protocols are never mixed: one file holds one protocol. An algorithm is named by its --algorithm and
the switches that change it. Every algorithm needs the same number of runs for every game; runs are ordered by seed.

Read it back for rliable (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264):

    from human_scores import read
    games, scores = read(Path("bench/results/atari.json"))
    rliable.library.get_interval_estimates(scores, ...)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.envs.atari_scores import human_normalised

SWITCHES = ("double", "dueling", "noisy")
Scores = dict[str, np.ndarray]


class Unusable(Exception):
    """Says which run cannot be used, and why."""


def collect(directories: list[Path]) -> tuple[str, list[str], Scores]:
    """Returns the protocol, the games, and float64 [runs, games] of human-normalised scores by algorithm.

    Args:
      directories: run directories, each with its final evaluation.

    Raises:
      Unusable: if a run has not ended or is no game of the table, protocols differ, or a score is missing.
    """
    protocols: set[str] = set()
    found: dict[str, dict[str, dict[int, float]]] = {}  # by algorithm, game and seed
    for directory in directories:
        config = json.loads((directory / "config.json").read_text())["config"]
        score = _final_score(directory, config["env"])
        protocols.add(config["protocol"])
        runs = found.setdefault(algorithm_name(config), {}).setdefault(config["env"], {})
        if config["seed"] in runs:
            raise Unusable(f"{directory}: seed {config['seed']} of {config['env']} is there twice")
        runs[config["seed"]] = score
    if len(protocols) != 1:
        raise Unusable(f"the runs have the protocols {sorted(protocols)}: collect those of one at a time")
    games = sorted({game for by_game in found.values() for game in by_game})
    return protocols.pop(), games, {name: _array(name, by_game, games) for name, by_game in sorted(found.items())}


def algorithm_name(config: dict[str, Any]) -> str:
    """Returns such as "double dueling c51, 3 steps, prioritized"."""
    words = [name for name in SWITCHES if config[name]] + [config["algorithm"]]
    steps = f", {config['n_step']} steps" if config["n_step"] > 1 else ""
    replay = f", {config['replay']}" if config["replay"] != "uniform" else ""
    return " ".join(words) + steps + replay


def write(path: Path, protocol: str, games: list[str], scores: Scores) -> None:
    """Writes the arrays as JSON: a file that can be compared line by line."""
    lines = {name: array.tolist() for name, array in scores.items()}
    record = {"score": "human-normalised", "protocol": protocol, "games": games, "scores": lines}
    path.write_text(json.dumps(record, indent=1) + "\n")


def read(path: Path) -> tuple[list[str], Scores]:
    """Returns the games and the arrays that `write` wrote."""
    record = json.loads(path.read_text())
    return record["games"], {name: np.array(lines, np.float64) for name, lines in record["scores"].items()}


def _final_score(directory: Path, env: str) -> float:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    final = [record for record in map(json.loads, lines) if record["kind"] == "final_evaluation"]
    if not final:
        raise Unusable(f"{directory} has no final evaluation: let it end")
    score = human_normalised(env, final[-1]["mean_return"])
    if score is None:
        raise Unusable(f"{directory}: {env} has no human score")
    return score


def _array(name: str, by_game: dict[str, dict[int, float]], games: list[str]) -> np.ndarray:
    counts = {game: len(by_game.get(game, {})) for game in games}
    if len(set(counts.values())) != 1:
        raise Unusable(f"{name} has different numbers of runs: {counts}")
    return np.array([[by_game[game][seed] for seed in sorted(by_game[game])] for game in games]).T


def main() -> None:
    """Collects what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    try:
        protocol, games, scores = collect(arguments.runs)
    except Unusable as error:
        sys.exit(f"error: {error}")
    write(arguments.output, protocol, games, scores)
    for name, array in scores.items():
        print(f"{name}: {array.shape[0]} runs, {array.shape[1]} games, mean {array.mean():.3f}")


if __name__ == "__main__":
    main()
