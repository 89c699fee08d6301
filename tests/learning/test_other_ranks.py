"""A run that goes on at another number of ranks does not collapse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from .runs import train

pytestmark = [pytest.mark.learning, pytest.mark.faults]

BEFORE, MORE, PERIOD = 50_000, 10_000, 1_000
OPTIONS = (
    *("--preset", "cartpole", "--evaluation-period", str(PERIOD), "--evaluation-episodes", "10"),
    *("--final-evaluation-episodes", "10"),
    *("--checkpoint-period", "10000", "--name", "run"),
)


def _evaluations(run_directory: Path) -> dict[int, float]:
    """Returns the mean return of each periodic evaluation, by env step."""
    records = [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]
    return {record["env_steps"]: record["mean_return"] for record in records if record["kind"] == "evaluation"}


@pytest.mark.parametrize("seed", [0, 1])
def test_learning_goes_on_without_a_collapse_at_more_and_at_fewer_ranks(seed: int, tmp_path: Path) -> None:
    """Two ranks learn CartPole; one, two and three go on, and do about as well as those who stayed two.

    Single evaluations of this learner fall back now and then, wherever it runs, so ten of them are held against ten,
    and a fall of less than a fifth is not told from chance (docs/explanation/reliability.md has the numbers).
    """
    train(2, *OPTIONS, "--seed", str(seed), "--total-env-steps", str(BEFORE), "--runs-dir", str(tmp_path))
    (run_directory,) = tmp_path.glob("*/run")
    before = [score for step, score in _evaluations(run_directory).items() if step > BEFORE - MORE]
    after = {}
    for ranks in (2, 1, 3):
        copy = shutil.copytree(run_directory, tmp_path / f"at {ranks}")
        train(ranks, "--resume", str(copy), "--total-env-steps", str(BEFORE + MORE))
        after[ranks] = [score for step, score in _evaluations(copy).items() if step > BEFORE + PERIOD // 2]
        assert len(after[ranks]) == MORE // PERIOD
    for name, scores in {"before, at 2 ranks": before, **{f"after, at {r}": s for r, s in after.items()}}.items():
        print(f"{name}: mean return {np.mean(scores):.1f}, evaluations {[round(score) for score in scores]}")
    for ranks in (1, 3):
        assert np.mean(after[ranks]) >= 0.8 * min(np.mean(before), np.mean(after[2]))
