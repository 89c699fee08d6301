"""Laws of the comparison of groups of runs, and of what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rliable import metrics  # type: ignore[import-untyped]

from hvd_dqn.cli import compare as verb
from hvd_dqn.envs.atari_scores import human_normalised
from hvd_dqn.errors import EXIT_DONE, EXIT_USER_ERROR

from .report_runs import evaluation, final, training, whole_run, write_run

PLAIN, DOUBLE = (10.0, 20.0, 30.0, 40.0), (25.0, 45.0, 5.0)


def _runs(folder: Path, name: str, scores: tuple[float, ...], **config: Any) -> list[str]:
    return [str(whole_run(folder / f"{name}-{seed}", score, seed=seed, **config)) for seed, score in enumerate(scores)]


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    return _runs(tmp_path, "plain", PLAIN) + _runs(tmp_path, "double", DOUBLE, double=True)


def _json(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert verb.main([*arguments, "--json"]) == EXIT_DONE
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_scores_are_those_of_the_final_evaluations_as_rliable_takes_them(
    two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Algorithm -> [runs, tasks], runs by seed whatever their order; the statistics are rliable's."""
    found = _json(*two[::-1], capsys=capsys)
    assert found["environments"] == ["CartPole-v1"]
    assert found["scores"] == {"--double": [[s] for s in DOUBLE], "preset cartpole": [[s] for s in PLAIN]}
    x, y = (np.array(found["scores"][name]) for name in ("--double", "preset cartpole"))
    assert found["interquartile_mean"]["preset cartpole"]["value"] == pytest.approx(metrics.aggregate_iqm(y))
    (pair,) = found["probability_of_improvement"]
    assert (pair["of"], pair["over"]) == ("--double", "preset cartpole")
    assert pair["value"] == pytest.approx(metrics.probability_of_improvement(x, y))
    assert 0.0 <= pair["low"] <= pair["value"] <= pair["high"] <= 1.0


@pytest.mark.parametrize(("score", "expected"), [("final", 10.0), ("best", 8.0), ("last", 3.0)])
def test_the_score_is_chosen(tmp_path: Path, score: str, expected: float, capsys: pytest.CaptureFixture[str]) -> None:
    records = [evaluation(100, 8.0), evaluation(200, 3.0), final(200, 10.0)]
    first = write_run(tmp_path / "a", records)
    second = write_run(tmp_path / "b", records, double=True)
    found = _json(str(first), str(second), "--score", score, capsys=capsys)
    assert found["scores"] == {"preset cartpole": [[expected]], "--double": [[expected]]}


def test_the_terminal_shows_statistics_and_differing_settings(
    two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb.main(two) == EXIT_DONE
    said = capsys.readouterr()
    assert "Mean return of the final evaluation on CartPole-v1" in said.out
    assert "preset cartpole  over  --double" in said.out
    assert "Settings that differ:\n  --double: no, yes\n" in said.out
    assert said.err == ""


def test_the_page_of_a_comparison_has_its_statistics(two: list[str], tmp_path: Path) -> None:
    assert verb.main([*two, "--output", str(tmp_path / "c.html")]) == EXIT_DONE
    page = (tmp_path / "c.html").read_text()
    assert "Interquartile mean" in page
    assert "P(A &gt; B)" in page or "P(A > B)" in page


def test_games_are_tasks_with_human_normalised_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    games = ("ALE/Breakout-v5", "ALE/Pong-v5")
    runs = [
        run
        for name, config in (("a", {}), ("b", {"double": True}))
        for i, game in enumerate(games)
        for run in _runs(tmp_path, f"{name}{i}", (1.0, 2.0, 3.0), env=game, **config)
    ]
    found = _json(*runs, capsys=capsys)
    assert found["environments"] == list(games)
    assert found["score"] == "human-normalised score"
    expected = [[human_normalised(game, score) for game in games] for score in (1.0, 2.0, 3.0)]
    assert list(found["scores"].values()) == [expected, expected]


def test_few_seeds_repeated_seeds_and_other_revisions_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = _runs(tmp_path, "plain", (1.0, 2.0)) + _runs(tmp_path, "double", (1.0, 2.0, 3.0), double=True)
    config = Path(runs[0]) / "config.json"
    config.write_text(config.read_text().replace('"abc"', '"def"').replace('"seed": 0', '"seed": 1'))
    assert verb.main(runs) == EXIT_DONE
    warned = capsys.readouterr().err
    assert "warning: fewer than 3 seeds of preset cartpole" in warned
    assert "preset cartpole: a seed is there twice" in warned
    assert "preset cartpole: the runs are of different revisions" in warned
    assert "--double" not in warned


def test_what_cannot_be_compared_is_refused_with_the_remedy(
    tmp_path: Path, two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*runs: str) -> str:
        assert verb.main(list(runs)) == EXIT_USER_ERROR
        return capsys.readouterr().err

    assert "nothing to compare" in refused(*two[:2])
    unfinished = str(write_run(tmp_path / "unfinished", [training(100), evaluation(100, 1.0)], n_step=3))
    assert "wait until it has ended, or give --score last" in refused(*two, unfinished)
    acrobot = _runs(tmp_path, "a", (1.0,), env="Acrobot-v1") + _runs(
        tmp_path, "b", (1.0,), env="Acrobot-v1", double=True
    )
    assert "different scales" in refused(two[0], two[4], *acrobot)
    nature = _runs(tmp_path, "nature", (1.0,), protocol="nature", env="ALE/Pong-v5", double=True)
    own = _runs(tmp_path, "own", (1.0,), env="ALE/Pong-v5")
    assert "--protocol is nature and own: compare one at a time" in refused(*nature, *own)
    breakout = _runs(tmp_path, "breakout", (1.0,), env="ALE/Breakout-v5", double=True)
    pong = _runs(tmp_path, "pong", (1.0, 2.0), env="ALE/Pong-v5", double=True)
    assert "1 runs of ALE/Breakout-v5, 2 runs of ALE/Pong-v5" in refused(*breakout, *pong, *own)
