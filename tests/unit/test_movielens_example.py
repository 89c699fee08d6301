"""examples/movielens: the fit, sessions by hand, and what is compared, on ratings that are generated here."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from hvd_dqn.envs.find import import_place

ROOT = Path(__file__).parents[2]
MOVIELENS = ROOT / "examples" / "movielens"
ratings = import_place(str(MOVIELENS / "ratings.py"), "the test", "function")
next_item = import_place(str(MOVIELENS / "next_item.py"), "--env", "Id")
program = import_place(str(MOVIELENS / "run.py"), "the test", "function")


def _data(users: int = 300, items: int = 120, seed: int = 0) -> Any:
    """Returns ratings of a model with one factor, and half of the cells rated."""
    rng = np.random.default_rng(seed)
    quality, taste, kind = rng.normal(0.0, 0.7, items), rng.normal(size=users), rng.normal(0.0, 0.6, items)
    rows, columns = np.nonzero(rng.random((users, items)) < 0.5)
    exact = 3.3 + quality[columns] + taste[rows] * kind[columns] + rng.normal(0.0, 0.4, len(rows))
    titles = [f"Film {item}" for item in range(items)]
    return ratings.Ratings(rows, columns, np.clip(np.round(exact), 1, 5), titles)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    fitted = next_item.fit_ratings(_data())
    monkeypatch.setattr(next_item, "fit", lambda wheel: fitted)
    return fitted


def test_a_users_factors_are_a_ridge_regression() -> None:
    """Three ratings of one film without factors: the bias is their sum over 3 + 6, as the penalty is 6."""
    items = np.array([[1.0, 0.0]] * 3)
    np.testing.assert_allclose(next_item.fit_user(np.array([5.0, 4.0, 3.0]), np.full(3, 3.0), items), [3 / 9, 0.0])
    np.testing.assert_array_equal(next_item.fit_user(np.zeros(0), np.zeros(0), np.zeros((0, 2))), [0.0, 0.0])


def test_the_films_are_fitted_to_some_users_alone(model: Any) -> None:
    """Other ratings of the held-out users change nothing about the films."""
    data = _data()
    held_out = np.random.default_rng(0).permutation(300)[210:]
    changed = data._replace(ratings=np.where(np.isin(data.users, held_out), 6.0 - data.ratings, data.ratings))
    other = next_item.fit_ratings(changed)
    np.testing.assert_array_equal(other.items, model.items)
    np.testing.assert_array_equal(other.mean, model.mean)
    assert (other.held_out.factors != model.held_out.factors).any()
    assert (len(model.fitted.rated), len(model.held_out.rated), model.items.shape) == (210, 90, (100, 5))


def test_the_fit_predicts_ratings_that_it_has_not_seen(model: Any) -> None:
    """Of held-out users, from the first half of their ratings; films alone predict worse."""
    errors, of_films = [], []
    for row in model.held_out.rated:
        rated = np.flatnonzero(row)
        known, asked = rated[::2], rated[1::2]
        user = next_item.fit_user(row[known], model.mean[known], model.items[known])
        errors += list(row[asked] - model.mean[asked] - model.items[asked] @ user)
        of_films += list(row[asked] - model.mean[asked])
    assert np.std(errors) < 0.75 * np.std(of_films)


def test_a_logged_session_gives_the_users_own_ratings(model: Any) -> None:
    env = next_item.NextItem("held-out", "logged")
    user = int(env.players[3])
    own = model.held_out.rated[user]
    observation, info = env.reset(seed=0, options={"user": user})
    np.testing.assert_array_equal(observation, 0.0)
    np.testing.assert_array_equal(info["action_mask"], own > 0)
    shown, dislikes, ended = 0, 0, False
    while not ended:
        film = int(np.flatnonzero(info["action_mask"])[0])
        observation, reward, ended, truncated, info = env.step(film)
        shown, dislikes = shown + 1, dislikes + (own[film] < 4)
        assert reward == float(own[film] >= 4)
        assert not info["action_mask"][film]
        np.testing.assert_allclose(observation[-2:], [shown / 20, dislikes / 3], rtol=1e-6)
        assert (ended, truncated) == (dislikes == 3 or shown == 20, False)


def test_every_held_out_user_is_played_from_the_log_once(model: Any) -> None:
    """The films with the most likes first, among those that the user rated, until three of them were disliked."""
    expected = []
    for own in model.held_out.rated[(model.held_out.rated > 0).sum(axis=1) >= 10]:
        films = sorted(np.flatnonzero(own), key=lambda film: (-model.likes[film], film))
        liked, dislikes = 0, 0
        for film in films[:20]:
            liked, dislikes = liked + (own[film] >= 4), dislikes + (own[film] < 4)
            if dislikes == 3:
                break
        expected.append(liked)
    found = program.play(program.baselines(np.random.default_rng(0))["popularity"], "logged", 0, 5)
    assert found["mean_return"] == pytest.approx(np.mean(expected), abs=1e-3)
    low, high = found["interval"]
    assert low < found["mean_return"] < high


def test_coverage_counts_films_as_if_all_were_recommended_equally_often(model: Any) -> None:
    found = {
        name: program.play(policy, "simulated", 0, 150)["coverage"]
        for name, policy in program.baselines(np.random.default_rng(0)).items()
    }
    assert 90.0 < found["random"] <= 100.0
    assert 3.0 <= found["mean rating"] <= 20.0
    assert found["mean rating"] < found["factors"] < found["random"]


def test_a_film_is_liked_if_its_rating_would_be_rounded_to_four(model: Any) -> None:
    """Ratings of 4.0, 3.5 and 3.0 around which they deviate by 0.5: the normal distribution at 1, 0 and -1."""
    films = model._replace(mean=np.array([3.5, 3.0, 2.5]), items=np.ones((3, 1)), deviation=0.5)
    np.testing.assert_allclose(next_item.like_probability(films, np.array([0.5])), [0.841345, 0.5, 0.158655], atol=1e-6)


def test_simulated_users_like_as_often_as_the_model_says(model: Any) -> None:
    env = next_item.NextItem()
    chances = next_item.like_probability(model, model.fitted.factors[7])
    films = np.argsort(np.abs(chances - 0.5))[:3]
    liked = []
    for seed in range(700):
        env.reset(seed=seed, options={"user": 7})
        liked.append([env.step(film)[1] for film in films[:2]])
    np.testing.assert_allclose(np.mean(liked, axis=0), chances[films[:2]], atol=0.08)


def test_it_is_an_environment_of_gymnasium(model: Any) -> None:
    check_env(next_item.NextItem(render_mode="rgb_array"), skip_render_check=False)


def test_other_names_and_missing_or_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="users 'all' with responses 'simulated': give fitted or held-out"):
        next_item.NextItem("all")
    with pytest.raises(ValueError, match=r"does not exist: run `python .*ratings\.py`"):
        ratings.read(tmp_path / "absent.whl")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as package:
        package.writestr("nothing", "")
    with pytest.raises(ValueError, match=r"is not recbole 1\.2\.1: remove it"):
        ratings.read(tmp_path / "other.whl")


def test_no_rating_is_committed() -> None:
    command = ["git", "ls-files", "examples/movielens"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {Path(name).suffix for name in files} <= {".py", ".md", ".jsonl"}


@pytest.mark.slow
@pytest.mark.skipif(not ratings.WHEEL.is_file(), reason="python examples/movielens/ratings.py has not been run")
def test_the_program_trains_plays_and_continues(tmp_path: Path) -> None:
    words = [sys.executable, str(MOVIELENS / "run.py"), "--env-steps", "2000", "--sessions", "50", "--seeds", "0"]
    words += ["--results", str(tmp_path / "results.jsonl"), "--runs-dir", str(tmp_path / "runs")]
    for finished in (6, 0):
        done = subprocess.run(
            [*words, "--plot", str(tmp_path / "films.png")], capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stderr
        assert "Commercial\nuse and redistribution need the group's permission" in done.stdout
        assert done.stdout.count(": done") == finished
    assert (tmp_path / "films.png").stat().st_size > 10_000
