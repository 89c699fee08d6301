"""Human-normalised scores of Atari's games: 0 is a random policy, 1 a human tester."""

from __future__ import annotations

import csv
from pathlib import Path

_TABLE = Path(__file__).with_name("atari_scores.csv")


def human_normalised(env_id: str, score: float) -> float | None:
    """Normalises a game's score linearly by those of a random policy and of a human.

    Mnih et al. (2015), Extended Data Table 2; the scores are those of `atari_scores.csv`.

    Args:
      env_id: such as ALE/Pong-v5, `module:` before it or not.
      score: mean return of the game's own rewards.

    Returns:
      (score - random) / (human - random); None if the environment is no game of the table.
    """
    name = env_id.rpartition(":")[2]
    if not name.startswith("ALE/"):
        return None
    game = name.removeprefix("ALE/").rpartition("-v")[0]
    with _TABLE.open(encoding="utf-8") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            if row["game"] == game:
                random, human = float(row["random"]), float(row["human"])
                return (score - random) / (human - random)
    return None


def score_fields(env_id: str, score: float) -> dict[str, float]:
    """Returns what a record of evaluations holds besides the score: `human_normalised`, if the game has it."""
    normalised = human_normalised(env_id, score)
    return {} if normalised is None else {"human_normalised": normalised}
