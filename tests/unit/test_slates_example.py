"""examples/slates: interest evolution by hand, SlateQ by brute force, and a short run of the program."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.base import Batch
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.find import import_place
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.open_episode import CollectorState
from hvd_dqn.errors import UserError
from hvd_dqn.networks.spec import NetworkSpec

ROOT = Path(__file__).parents[2]
SLATES = ROOT / "examples" / "slates"
interest = import_place(str(SLATES / "interest.py"), "--env", "Id")
slateq = import_place(str(SLATES / "slateq.py"), "--algorithm", "class")
serving = import_place(str(SLATES / "serving.py"), "the test", "function")
ENV = f"{SLATES / 'interest.py'}:InterestEvolution-v0"
TOPICS = 20


class Drawn:
    """A random generator that gives numbers drawn before, or one user's column of them."""

    def __init__(self, draws: np.ndarray, topics: np.ndarray, qualities: np.ndarray, interests: np.ndarray) -> None:
        self._draws, self._topics, self._qualities, self._interests = draws, topics, qualities, interests

    def of(self, user: int) -> Drawn:
        own = slice(user, user + 1)
        return Drawn(self._draws[:, own], self._topics[own], self._qualities[own], self._interests[own])

    def random(self, shape: Any) -> np.ndarray:
        assert shape == self._draws.shape
        return self._draws

    def integers(self, high: int, size: Any) -> np.ndarray:
        assert (high, size) == (TOPICS, self._topics.shape)
        return self._topics

    def normal(self, mean: np.ndarray, deviation: float) -> np.ndarray:
        return mean + deviation * self._qualities

    def uniform(self, low: float, high: float, size: Any) -> np.ndarray:
        return self._interests[: size[0]]


def _drawn(rng: np.random.Generator, users: int, candidates: int = 10) -> Drawn:
    topics = rng.integers(TOPICS, size=(users, candidates))
    return Drawn(rng.random((2, users)), topics, rng.normal(size=topics.shape), rng.uniform(-1, 1, (users, TOPICS)))


def _observations(count: int = 6, **arguments: int) -> tuple[np.ndarray, Any]:
    """Returns observations [N, n], and the environment that gave them."""
    env = interest.InterestEvolutionVector(count, **arguments)
    env.reset(seed=1)
    observation, *_ = env.step(np.zeros(count, np.int64))
    return observation, env


def _spec(env: Any, slate_size: int = 3, **settings: Any) -> NetworkSpec:
    shape, actions = env.single_observation_space.shape, int(env.single_action_space.n)
    given: dict[str, Any] = {"outputs_per_action": slate_size + 2, "hidden_sizes": (16, 16)} | settings
    return NetworkSpec(shape, np.dtype(np.float32), 0, actions, seed=3, **given)


def test_topics_have_the_papers_qualities() -> None:
    qualities = interest.topic_qualities()
    assert len(qualities) == TOPICS
    np.testing.assert_allclose(qualities[[0, 1, 13, 14, 15, 19]], [-3, -3 + 3 / 13, 0, 0, 0.6, 3])


def test_a_user_chooses_by_the_conditional_logit() -> None:
    """e^.5, e^-.5, 1 and e over their sum 5.97353."""
    chosen = interest.choice_probabilities(np.array([[0.5, -0.5, 0.0]]))
    np.testing.assert_allclose(chosen, [[0.276004, 0.101536, 0.167405, 0.455055]], atol=1e-6)


def test_what_is_watched_changes_the_interest_the_less_the_more_extreme_it_is() -> None:
    before = np.array([0.0, 0.5, -0.5, 1.0, -1.0])
    every = np.ones(5, np.bool_)
    np.testing.assert_allclose(interest.changed_interest(before, every), [0.3, 0.575, -0.275, 1.0, -1.0])
    np.testing.assert_allclose(interest.changed_interest(before, ~every), [-0.3, 0.425, -0.725, 1.0, -1.0])


def test_better_items_cost_less_time() -> None:
    """Of 4 units .9 / 3.4 * 4 * 3 = 3.176471 come back for a quality of 3."""
    change = interest.time_change(np.array([4.0, 4.0, 1.0]), np.array([3.0, -3.0, 0.0]))
    np.testing.assert_allclose(change, [-0.823529, -7.176471, -1.0], atol=1e-6)


def test_a_session_by_hand() -> None:
    """A click, no click, and the last item, of which only the time that is left is watched."""
    env = interest.InterestEvolutionVector(1, candidates=3, slate_size=2)
    drawn = _drawn(np.random.default_rng(0), 1, 3)
    drawn._interests[:] = 0.0
    drawn._topics[:], drawn._qualities[:] = [[19, 0, 5]], 0.0
    env._np_random = drawn
    observation, _ = env.reset()
    assert observation.shape == (1, 20 + 3 * 21 + 3)
    np.testing.assert_allclose(observation[0, 80:], [3, -3, -3 + 15 / 13, 0, 0, 0], rtol=1e-6)
    assert observation[0, 20:80].reshape(3, 20).argmax(axis=1).tolist() == [19, 0, 5]
    chances = 1 / (2 + np.e)  # of each item on a slate of two
    drawn._draws[:] = [[chances * 0.99], [0.49]]  # the first item, and the interest rises
    observation, reward, ended, *_ = env.step(np.array([1]))  # the candidates 0 and 2
    assert (reward[0], ended[0]) == (4.0, False)
    assert env.time_left[0] == pytest.approx(200 - 0.823529)
    assert env.interests[0, 19] == pytest.approx(0.3)
    assert observation[0, -3:].tolist() == [1, 0, 0]
    drawn._draws[:] = [[0.999], [0.0]]
    observation, reward, ended, *_ = env.step(np.array([2]))
    assert (reward[0], ended[0]) == (0.0, False)
    assert env.time_left[0] == pytest.approx(200 - 0.823529 - 0.5)
    assert observation[0, -3:].tolist() == [0, 0, 1]
    env.time_left[0] = 1.0
    drawn._draws[:] = [[chances * 1.01], [0.51]]  # the second item, and the interest falls
    observation, reward, ended, *_ = env.step(np.array([2]))  # the candidates 1 and 2
    assert (reward[0], ended[0]) == (1.0, True)
    assert env.interests[0, 5] == pytest.approx(-0.3)
    assert observation[0, -3:].tolist() == [0, 1, 0]
    observation, reward, ended, *_ = env.step(np.array([0]))  # the next user
    assert (reward[0], ended[0], env.time_left[0]) == (0.0, False, 200.0)
    assert observation[0, -3:].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(env.interests, 0.0)


def test_a_row_of_the_vector_form_is_the_single_form() -> None:
    """With the same draws, over the ends of sessions."""
    users, rng = 4, np.random.default_rng(2)
    vector = interest.InterestEvolutionVector(users)
    singles = [interest.InterestEvolution() for _ in range(users)]
    drawn = _drawn(rng, users)
    vector._np_random = drawn
    observation, _ = vector.reset()
    for user, single in enumerate(singles):
        single._np_random = drawn.of(user)
        np.testing.assert_array_equal(single.reset()[0], observation[user])
    vector.time_left[:] = [3.0, 6.0, 9.0, 200.0]
    for single, left in zip(singles, vector.time_left, strict=True):
        single.users.time_left[0] = left
    ended, sessions = np.zeros(users, np.bool_), 0
    for _ in range(30):
        drawn, actions = _drawn(rng, users), rng.integers(120, size=users)
        vector._np_random = drawn
        observation, reward, ends, _, _ = vector.step(actions)
        for user, single in enumerate(singles):
            single._np_random = single.users._np_random = drawn.of(user)
            if ended[user]:
                drawn._interests[: int(ended.sum())] = vector.interests[np.flatnonzero(ended)]
                single._np_random._interests = vector.interests[[user]].copy()
                np.testing.assert_array_equal(single.reset()[0], observation[user])
            else:
                alone = single.step(actions[user])
                np.testing.assert_array_equal(alone[0], observation[user])
                assert alone[1:3] == (reward[user], ends[user])
        ended, sessions = ends, sessions + int(ends.sum())
    assert sessions >= 3


def test_a_seed_determines_a_session() -> None:
    def lived(seed: int) -> list[Any]:
        single = interest.InterestEvolution()
        first, _ = single.reset(seed=seed)
        return [first.tolist(), *(single.step(np.int64(5))[1] for _ in range(30))]

    assert lived(1) == lived(1)
    assert lived(1) != lived(2)


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_open_sessions_continue_as_if_nothing_had_happened(vectorization: str) -> None:
    def collector() -> Collector:
        maker = EnvironmentMaker(ENV, {}, vectorization)
        return Collector(maker.vector(3), maker.spaces(), 1.0, EpisodeSeeds(7))

    def lived(collector: Collector, rows: np.ndarray) -> list[list[bytes]]:
        return [[column.tobytes() for column in collector.step(row)[0]] for row in rows]

    rows = np.random.default_rng(0).integers(120, size=(250, 3))
    whole, resumed = collector(), collector()
    whole.reset()
    lived(whole, rows[:130])
    state = CollectorState.from_json(json.loads(json.dumps(whole.state().to_json())))
    assert resumed.restore([*state.episodes], state.generator, 10) == 3
    assert lived(resumed, rows[130:]) == lived(whole, rows[130:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2, 3), "2 candidates are too few for a slate of 3: give at least 3 candidates"),
        ((60, 3), "60 candidates have 34,220 slates of 3, more than 20,000 actions: give fewer candidates"),
        ((10, 0), "slate_size is 0: give a whole number from 1"),
        (("10", 3), "candidates is '10': give a whole number"),
        ((10, True), "slate_size is True: give a whole number"),
    ],
)
def test_slates_that_cannot_be_shown_are_refused(arguments: tuple[Any, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        interest.InterestEvolution(*arguments)


def test_a_job_with_too_few_items_says_so() -> None:
    words = [sys.executable, str(ROOT / "train.py"), "--env", ENV, "--env-kwargs", '{"candidates": 2}']
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert (
        "2 candidates are too few for a slate of 3: give at least 3 candidates, or a smaller slate_size" in done.stderr
    )


@pytest.mark.parametrize(("candidates", "slate_size"), [(10, 3), (5, 1), (4, 4), (6, 2)])
def test_a_slates_value_is_its_items_mean_under_the_choice(candidates: int, slate_size: int) -> None:
    """Proposition 1, by brute force; an item has the same value in all its slates."""
    observation, env = _observations(candidates=candidates, slate_size=slate_size)
    outputs = np.asarray(slateq.network(_spec(env, slate_size))(observation))  # [N, A, 2 + k]
    assert np.ptp(outputs[:, :, 1:-1]) > 0.0
    for row in range(len(observation)):
        values: dict[int, float] = {}
        for action, slate in enumerate(itertools.combinations(range(candidates), slate_size)):
            interests = env.interests[row, env.topics[row, list(slate)]]
            chances = interest.choice_probabilities(interests[None])[0]  # [k + 1]
            value, *items = outputs[row, action]
            assert value == pytest.approx(float(chances @ items), abs=1e-5)
            for item, own in zip((*slate, -1), items, strict=True):
                assert values.setdefault(item, own) == own
        assert len(values) == candidates + 1


def test_the_published_form_takes_the_null_item_as_worth_nothing() -> None:
    observation, env = _observations()
    learned = np.asarray(slateq.network(_spec(env))(observation))
    zero = np.asarray(slateq.network_with_null_zero(_spec(env))(observation))
    np.testing.assert_array_equal(zero[:, :, 1:-1], learned[:, :, 1:-1])
    np.testing.assert_array_equal(zero[:, :, -1], 0.0)
    chances = interest.choice_probabilities(np.take_along_axis(env.interests, env.topics[:, [2, 5, 7]], axis=1))
    action = serving.actions_of(np.array([[2, 5, 7]]), env.slates)[0]
    np.testing.assert_allclose(zero[:, action, 0], (chances[:, :3] * zero[:, action, 1:4]).sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(learned[:, action, 0], (chances * learned[:, action, 1:]).sum(axis=1), atol=1e-5)


def test_an_items_value_depends_on_the_user_and_the_item_alone() -> None:
    observation, env = _observations(2)
    model = slateq.network(_spec(env))
    other = observation.copy()
    for column in (slice(20 + 3 * 20, 20 + 10 * 20), slice(220 + 3, 230), slice(230, 234)):
        other[:, column] = np.random.default_rng(0).normal(size=other[:, column].shape)
    np.testing.assert_allclose(model(other)[:, 0, 1:], model(observation)[:, 0, 1:], atol=1e-6)  # the slate 1 2 3
    other[:, 220] += 1.0  # the first candidate's quality
    assert (np.abs(model(other) - model(observation))[:, 0, 1] > 1e-6).all()


def _batch(responses: list[list[float]], discount: list[float]) -> Batch:
    s_t = tf.concat([tf.zeros([len(responses), 5]), tf.constant(responses, tf.float32)], axis=1)
    rewards = tf.constant([4.0, 0.0, 4.0][: len(responses)])
    return Batch(s_t + 0.0, tf.constant([1, 0, 1]), rewards, tf.constant(discount), s_t)


@pytest.mark.parametrize("double", [False, True])
def test_the_item_that_was_chosen_learns_and_no_other(double: bool) -> None:
    """A click on the second place, none, and a click that ends the session; two slates of two items."""
    algorithm = slateq.SlateQ('{"slate_size": 2}', "mse", double, 1)
    assert algorithm.outputs_per_action == 4
    batch = _batch([[0, 1, 0], [0, 0, 1], [1, 0, 0]], [1.0, 0.5, 0.0])
    values = tf.Variable(tf.reshape(tf.range(24, dtype=tf.float32), [3, 2, 4]))  # slate value, items, null item
    q_t = tf.constant([[[9.0, 0, 0, 0], [7.0, 0, 0, 0]]] * 3)
    with tf.GradientTape() as tape:
        losses = algorithm.loss(lambda s: values, lambda s: q_t, batch, Noise(0, tf.constant(0), 0, 1, 1))
    expected = 7.0 if double else 9.0  # the online network prefers the second slate
    td = np.array([4 + expected - 6.0, 0.5 * expected - 11.0, 4.0 - 21.0])
    np.testing.assert_allclose(losses.loss, td**2)
    np.testing.assert_allclose(losses.priority, np.abs(td))
    np.testing.assert_allclose(losses.q, [4.0, 8.0, 20.0])
    gradient = tape.gradient(losses.loss, values).numpy()
    assert {tuple(place) for place in np.argwhere(gradient)} == {(0, 1, 2), (1, 0, 3), (2, 1, 1)}
    np.testing.assert_allclose(algorithm.action_values(values), values[:, :, 0])


def test_slateq_needs_the_next_observation_and_its_network_slates() -> None:
    _, env = _observations(1)
    with pytest.raises(UserError, match="--n-step 3 must be 1"):
        slateq.SlateQ("{}", "mse", False, 3)
    with pytest.raises(UserError, match="values of slates: choose --algorithm"):
        slateq.network(_spec(env, outputs_per_action=1))
    with pytest.raises(UserError, match=r"float32 \[234\], and not \(4,\)"):
        slateq.network(_spec(env)._replace(observation_shape=(4,)))


def _items(scores: list[float], values: list[float], null: tuple[float, float]) -> Any:
    return serving.Items(*(np.array([row], np.float64) for row in (scores, values)), *np.array(null).reshape(2, 1, 1))


def test_top_k_and_greedy_miss_the_papers_counterexample() -> None:
    """Section 5.2: a has 2 * .8, b1 and b2 have 1 * 1 and the null item 1 * 0; {b1, b2} is worth 2 / 3."""
    items = _items([2.0, 1.0, 1.0], [0.8, 1.0, 1.0], (1.0, 0.0))
    assert 0 in serving.top_k(items, 2)[0]
    assert 0 in serving.greedy(items, 2)[0]
    assert serving.greedy(items, 1).tolist() == [[0]]
    assert serving.greedy(_items([1.0, 9.0, 1.0], [5.0, 3.0, 4.0], (1.0, 2.0)), 2).tolist() == [[0, 2]]
    assert serving.top_k(_items([1.0, 9.0, 1.0], [5.0, 3.0, 4.0], (1.0, 2.0)), 2).tolist() == [[0, 1]]


def test_greedy_adds_the_item_with_the_largest_marginal_value() -> None:
    rng = np.random.default_rng(0)
    items = serving.Items(rng.exponential(size=(50, 10)), rng.normal(size=(50, 10)), np.ones((50, 1)), np.ones((50, 1)))
    for user, chosen in enumerate(serving.greedy(items, 4)):
        slate: list[int] = []
        for _ in range(4):
            worth = {
                item: (1.0 + sum(items.scores[user, i] * items.values[user, i] for i in (*slate, item)))
                / (1.0 + sum(items.scores[user, i] for i in (*slate, item)))
                for item in range(10)
                if item not in slate
            }
            slate.append(max(worth, key=lambda item: worth[item]))
        assert sorted(slate) == chosen.tolist()


def test_served_slates_are_those_of_the_network() -> None:
    """The best slate of the items that are read back is the largest output, and actions and slates are one-to-one."""
    observation, env = _observations(40)
    outputs = np.asarray(slateq.network(_spec(env))(observation))
    items = serving.items_of(observation, outputs, env.slates)
    mass, total = items.scores, items.scores * items.values
    brute = [
        (items.null_score * items.null_value)[:, 0] + total[:, slate].sum(axis=1) for slate in env.slates
    ] / np.array([items.null_score[:, 0] + mass[:, slate].sum(axis=1) for slate in env.slates])  # [A, N]
    np.testing.assert_allclose(brute.T, outputs[:, :, 0], atol=1e-5)
    np.testing.assert_array_equal(serving.actions_of(env.slates, env.slates), np.arange(120))


def test_random_slates_give_the_published_return() -> None:
    """159.2, with a mean quality of -0.593; the mean of 4,000 sessions is exact to 0.2."""
    rng = np.random.default_rng(0)
    served = serving.serve(lambda observation: rng.integers(120, size=len(observation)), 4_000, seed=0)
    assert abs(served.returns.mean() - 159.2) < 0.8
    assert abs(served.quality + 0.593) < 0.02


def test_the_picture_shows_interests_the_slate_and_the_time_left() -> None:
    single = interest.InterestEvolution(render_mode="rgb_array")
    single.reset(seed=1)
    first = single.render()
    assert (first.dtype, first.shape[2]) == (np.uint8, 3)
    assert first.shape[0] % 2 == first.shape[1] % 2 == 0
    for _ in range(5):
        single.step(np.int64(7))
    assert (single.render() != first).any()
    assert single.get_action_meanings()[:2] == ["1 2 3", "1 2 4"]


def test_the_recorded_runs_show_what_the_page_says() -> None:
    """In every seed planning with the null item's value is worth more than the published optimum; the rest is less."""
    records = [json.loads(line) for line in (SLATES / "results.jsonl").read_text().splitlines()]
    best = {
        task: [r["served"][way]["mean_return"] for r in records if r["task"] == task]
        for task, way in (("random", "random"), ("myopic", "optimal"), ("null-zero", "optimal"), ("slateq", "optimal"))
    }
    assert all(best.values())
    np.testing.assert_allclose(best["random"], 159.2, atol=0.8)
    np.testing.assert_allclose(best["myopic"], 166.3, atol=2.0)
    assert max(best["random"]) < min(best["myopic"])
    assert max(best["myopic"]) < min(best["null-zero"])
    assert min(best["slateq"]) > 174.6


@pytest.mark.slow
def test_the_program_trains_serves_and_continues(tmp_path: Path) -> None:
    words = [
        sys.executable,
        str(SLATES / "run.py"),
        "--env-steps",
        "1600",
        "--users",
        "20",
        "--seeds",
        "0",
        "--tasks",
        "random",
        "slateq",
    ]
    words += ["--results", str(tmp_path / "results.jsonl"), "--runs-dir", str(tmp_path / "runs")]
    words += ["--plot", str(tmp_path / "slates.png")]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    for extra, finished in (([], 2), ([], 0), (["--tasks", "slateq", "--ranks", "2"], 1)):
        done = subprocess.run(
            [*words, *extra],
            cwd=tmp_path,
            env=os.environ | root,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": done") == finished
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(r["task"], r["ranks"]) for r in records] == [("random", 1), ("slateq", 1), ("slateq", 2)]
    assert all(100.0 < way["mean_return"] < 290.0 for record in records for way in record["served"].values())
    assert (tmp_path / "slates.png").stat().st_size > 10_000
    (place,) = (tmp_path / "runs").glob("*/slateq-np1-0")
    verbs = (("evaluate", "--episodes", "2"), ("watch", "--format", "gif", "--max-steps", "5"), ("report",))
    for verb, *flags in (*verbs, ("export", "--format", "keras"), ("export", "--format", "onnx")):
        words = [str(Path(sys.executable).parent / "hvd-dqn"), verb, str(place), *flags]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
