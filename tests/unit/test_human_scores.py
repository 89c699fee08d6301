"""Laws of human-normalised scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvd_dqn.envs.atari_scores import human_normalised

from .test_report import _summary

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("env", "score", "expected"),
    [
        ("ALE/Pong-v5", -20.7, 0.0),
        ("ALE/Pong-v5", 14.6, 1.0),
        ("ALE/Breakout-v5", 401.2, 13.87),  # Mnih et al. (2015), Extended Data Table 2: 1327 % with other randoms
        ("ale_py:ALE/Qbert-v5", 163.9, 0.0),
        ("ALE/MontezumaRevenge-v5", 4753.3, 1.0),
        ("ALE/Adventure-v5", 1.0, None),
        ("CartPole-v1", 500.0, None),
        ("MinAtar/Breakout-v0", 10.0, None),
    ],
)
def test_a_random_policy_scores_zero_and_a_human_one(env: str, score: float, expected: float | None) -> None:
    assert human_normalised(env, score) == (None if expected is None else pytest.approx(expected, abs=0.01))


def test_the_table_has_the_57_games_and_ale_has_all_of_them_but_two() -> None:
    ale_py = pytest.importorskip("ale_py")
    lines = (ROOT / "hvd_dqn" / "envs" / "atari_scores.csv").read_text().splitlines()
    games = {line.split(",")[0] for line in lines if not line.startswith("#")} - {"game"}
    assert len(games) == 57
    known = {rom.title().replace("_", "") for rom in ale_py.roms.get_all_rom_ids()}
    assert games - known <= {"Defender", "Surround"}


def test_the_closing_summary_shows_the_score_of_a_game() -> None:
    (line,) = [line for line in _summary("runs/a", ["python"], "ALE/Pong-v5", 0.05) if "mean return" in line]
    assert line.endswith("human-normalised 0.629 (0 random, 1 human)")
    assert not any("human" in line for line in _summary("runs/a", ["python"]))
