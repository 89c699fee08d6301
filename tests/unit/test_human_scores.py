"""Laws of human-normalised scores, and of the arrays in which they are handed on to rliable."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_dqn.config import Config, flatten
from hvd_dqn.envs.atari_scores import human_normalised

from .test_report import _summary

ROOT = Path(__file__).parents[2]


def _bench() -> Any:
    spec = importlib.util.spec_from_file_location("human_scores", ROOT / "bench" / "human_scores.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def _run(folder: Path, env: str, seed: int, score: float | None, **changes: Any) -> Path:
    directory = folder / f"{env.replace('/', '_')}-{seed}-{len(list(folder.iterdir()))}"
    directory.mkdir()
    config = flatten(Config()) | {"env": env, "seed": seed, "protocol": "dopamine"} | changes
    (directory / "config.json").write_text(json.dumps({"config": config}))
    records = [{"kind": "training", "mean_return": 0.0}]
    records += [] if score is None else [{"kind": "final_evaluation", "mean_return": score}]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return directory


def test_scores_become_an_array_of_runs_by_games_for_each_algorithm(tmp_path: Path) -> None:
    bench, runs = _bench(), tmp_path / "runs"
    runs.mkdir()
    directories = [
        _run(runs, env, seed, score, **changes)
        for changes in ({}, {"algorithm": "c51", "n_step": 3, "double": True, "replay": "prioritized"})
        for seed, pong, breakout in ((3, 14.6, 1.7), (1, -20.7, 30.5))
        for env, score in (("ALE/Pong-v5", pong), ("ALE/Breakout-v5", breakout))
    ]
    protocol, games, scores = bench.collect(directories)
    assert (protocol, games) == ("dopamine", ["ALE/Breakout-v5", "ALE/Pong-v5"])
    bench.write(tmp_path / "scores.json", protocol, games, scores)
    games_read, read = bench.read(tmp_path / "scores.json")
    assert games_read == games
    assert list(read) == ["double c51, 3 steps, prioritized", "dqn"]
    for array in read.values():
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, [[1.0, 0.0], [0.0, 1.0]])  # seed 1, then seed 3


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (("ALE/Pong-v5", 1, None, {}), "has no final evaluation: let it end"),
        (("CartPole-v1", 1, 1.0, {}), "CartPole-v1 has no human score"),
        (("ALE/Pong-v5", 0, 1.0, {}), "seed 0 of ALE/Pong-v5 is there twice"),
        (("ALE/Breakout-v5", 1, 1.0, {"protocol": "nature"}), "collect those of one at a time"),
        (("ALE/Breakout-v5", 0, 1.0, {"algorithm": "qr"}), "has different numbers of runs"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    last: tuple[str, int, float | None, Any], says: str, tmp_path: Path
) -> None:
    bench, (env, seed, score, changes) = _bench(), last
    directories = [_run(tmp_path, "ALE/Pong-v5", 0, 1.0), _run(tmp_path, env, seed, score, **changes)]
    with pytest.raises(bench.Unusable, match=says):
        bench.collect(directories)
