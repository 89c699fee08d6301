"""The job learns: real runs of the presets, judged on fresh greedy episodes of their best checkpoint.

`-k smoke` runs one seed of each at two ranks (what CI does); all of it takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .runs import learn

pytestmark = pytest.mark.learning


@pytest.mark.parametrize(("preset", "at_least"), [("cartpole", 475), ("lunarlander", 200), ("acrobot", -100)])
def test_smoke_one_seed_at_two_ranks(preset: str, at_least: float, tmp_path: Path) -> None:
    assert learn(preset, 2, 0, tmp_path).mean_return >= at_least


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_cartpole_is_solved_at_any_number_of_ranks(ranks: int, seed: int, tmp_path: Path) -> None:
    assert learn("cartpole", ranks, seed, tmp_path).mean_return >= 475


def test_lunarlander_is_solved_on_at_least_four_of_five_seeds(tmp_path: Path) -> None:
    means = [learn("lunarlander", 2, seed, tmp_path / str(seed)).mean_return for seed in range(5)]
    assert sum(mean >= 200 for mean in means) >= 4, means


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_acrobot_is_solved(seed: int, tmp_path: Path) -> None:
    assert learn("acrobot", 2, seed, tmp_path).mean_return >= -100
