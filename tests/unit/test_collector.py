"""Laws of collection: what is stored is what happened, compared with environments that are stepped independently."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from hvd_dqn.envs.checks import ObservationCheck
from hvd_dqn.envs.collector import Collector, Episode
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.foreign import ForeignCalls
from hvd_dqn.envs.guard import Guard, VectorGuard
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.seeded_episodes import SeededEpisodes
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import JobFault, UserError
from hvd_dqn.seeding import integer_seed
from hvd_dqn.transition import Transition

from .toy_environments import BrokenVector, Counting, PaidReset, register_toys

register_toys()
CARTPOLE = Spaces((4,), np.dtype(np.float32), 0, 2)
GAMMA = 0.9
COUNTING = Spaces((2,), np.dtype(np.float32), 0, 2)
SEEDS = EpisodeSeeds(seed=1)
GAMMA = 0.9


def _collect(
    collector: Collector, actions: np.ndarray, first_number: int = 0
) -> tuple[list[Transition], list[tuple[int, Episode]]]:
    """Returns each step's transitions, and the episodes with the step at which they ended."""
    collector.reset(first_number)
    steps, episodes = [], []
    for number, row in enumerate(actions):
        transition, ended = collector.step(row)
        steps.append(transition)
        episodes += [(number, episode) for episode in ended]
    return steps, episodes


def _joined(steps: list[Transition]) -> Transition:
    return Transition(*(np.concatenate(columns) for columns in zip(*steps, strict=True)))


def _reference(
    make: Any, seeds: EpisodeSeeds, actions: np.ndarray, *, reset_takes_a_step: bool
) -> tuple[list[list[Any]], list[tuple[int, Episode]]]:
    """Steps plain environments one by one and writes down what each agent lived through, ordered by step and env.

    Episode n of environment i is seeded by hand.
    """
    lived: list[list[list[Any]]] = [[] for _ in actions]
    episodes: list[list[tuple[int, Episode]]] = [[] for _ in actions]
    for i in range(actions.shape[1]):
        env = make()
        begin = partial(_begin, env, seeds, i, itertools.count())
        s = begin()
        total, length, over = 0.0, 0, False
        for number, row in enumerate(actions):
            if over and reset_takes_a_step:
                s, over = begin(), False
                continue
            s_next, r, terminated, truncated, _ = env.step(row[i])
            lived[number].append([s, row[i], r, 0.0 if terminated else GAMMA, s_next])
            s, total, length = s_next, total + r, length + 1
            if terminated or truncated:
                episodes[number].append((number, Episode(total, length)))
                total, length, over = 0.0, 0, True
                if not reset_takes_a_step:
                    s, over = begin(), False
    return [item for step in lived for item in step], [item for step in episodes for item in step]


def _begin(env: gym.Env, seeds: EpisodeSeeds, index: int, numbers: Iterator[int]) -> Any:
    seed = integer_seed(seeds.seed, "environment", seeds.first_env + index, next(numbers))
    return env.reset(seed=seed)[0]


def _assert_lived(steps: list[Transition], lived: list[list[Any]]) -> None:
    joined = _joined(steps)
    assert len(joined.r_t) == len(lived)
    for name, column, expected in zip(Transition._fields, joined, zip(*lived, strict=True), strict=True):
        np.testing.assert_array_equal(column, np.array(expected, column.dtype), err_msg=name)


def test_next_step_resets_are_never_stored() -> None:
    """SyncVectorEnv of three CartPoles against plain CartPoles with the same seeds and actions, cut at 15 steps."""
    maker = EnvironmentMaker("CartPole-v1", {"max_episode_steps": 15}, "sync")
    actions, seeds = np.random.default_rng(0).integers(2, size=(150, 3)), EpisodeSeeds(11, 2)
    steps, episodes = _collect(Collector(maker.vector(3), CARTPOLE, GAMMA, seeds), actions)
    lived, expected_episodes = _reference(
        lambda: gym.make("CartPole-v1", max_episode_steps=15), seeds, actions, reset_takes_a_step=True
    )
    _assert_lived(steps, lived)
    assert episodes == expected_episodes
    assert len(lived) < 3 * 150
    joined = _joined(steps)
    terminated = int((joined.discount_t == 0).sum())
    assert 0 < terminated < len(episodes), "some are truncated"


def test_same_step_stores_the_final_observation() -> None:
    """With SAME_STEP the vector shows the next episode's first observation; s_t must be the ended one's last."""

    def make() -> gym.Env:
        return SeededEpisodes(gym.make("CartPole-v1", max_episode_steps=15))

    vector = SyncVectorEnv([make] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    actions, seeds = np.random.default_rng(1).integers(2, size=(100, 2)), EpisodeSeeds(5)
    steps, episodes = _collect(Collector(vector, CARTPOLE, GAMMA, seeds), actions)
    lived, expected_episodes = _reference(make, seeds, actions, reset_takes_a_step=False)
    _assert_lived(steps, lived)
    assert episodes == expected_episodes
    assert len(lived) == 2 * 100


def _obeys_cartpoles_physics(transition: Transition) -> None:
    """Puts a plain CartPole into each s_tm1 and compares one step of it."""
    env: Any = gym.make("CartPole-v1").unwrapped
    for s, a, r, discount, s_next in zip(*transition, strict=True):
        env.reset()
        env.state = s.astype(np.float64)
        expected, expected_reward, expected_terminated, _, _ = env.step(int(a))
        np.testing.assert_allclose(s_next, expected, atol=1e-5)
        assert r == expected_reward == 1.0
        assert (discount == 0) == expected_terminated


def test_native_resets_are_never_stored() -> None:
    """Every transition of the native CartPole obeys its physics; a reset step pays 0 and jumps to the start."""
    maker = EnvironmentMaker("CartPole-v1", {"max_episode_steps": 20}, "native")
    vector = maker.vector(4)
    assert not isinstance(vector, SyncVectorEnv)
    actions = np.random.default_rng(2).integers(2, size=(120, 4))
    steps, episodes = _collect(Collector(vector, CARTPOLE, GAMMA, SEEDS), actions)
    joined = _joined(steps)
    _obeys_cartpoles_physics(joined)
    ended_before_last = sum(number < 119 for number, _ in episodes)
    assert len(joined.r_t) == 4 * 120 - ended_before_last
    terminated = int((joined.discount_t == 0).sum())
    assert 0 < terminated < len(episodes), "some are truncated"
    assert all(episode.episode_return == episode.length <= 20 for _, episode in episodes)


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_a_reset_in_mid_episode_starts_all_accounts_anew(vectorization: str) -> None:
    """After the job's own reset (at a checkpoint) no episode carries over and no reset step is pending."""
    maker = EnvironmentMaker("CartPole-v1", {"max_episode_steps": 6}, vectorization)
    collector = Collector(maker.vector(3), CARTPOLE, GAMMA, SEEDS)
    push = np.ones((6, 3), np.int64)
    _collect(collector, push)  # ends exactly where all episodes are over
    steps, episodes = _collect(collector, push[:4])
    _obeys_cartpoles_physics(_joined(steps))
    assert len(_joined(steps).r_t) == 12
    assert episodes == []
    _, ended = collector.step(push[0]), collector.step(push[0])[1]
    assert [episode.length for episode in ended] == [6, 6, 6]


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_same_seeds_give_the_same_transitions_and_others_do_not(vectorization: str) -> None:
    actions = np.random.default_rng(2).integers(2, size=(40, 3))
    runs = []
    for seed in (1, 1, 2):
        maker = EnvironmentMaker("CartPole-v1", {}, vectorization)
        runs.append(_joined(_collect(Collector(maker.vector(3), CARTPOLE, GAMMA, EpisodeSeeds(seed)), actions)[0]))
    np.testing.assert_array_equal(runs[0].s_t, runs[1].s_t)
    assert runs[0].s_t[0, 0] != runs[2].s_t[0, 0]


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_termination_alone_stops_the_discount_and_a_return_is_its_episodes_sum(ending: str) -> None:
    """Episode e of three steps pays 10 e + 1, 2, 3: 30 e + 6; four vector steps per episode, one a reset."""
    maker = EnvironmentMaker("Counting-v0", {"length": 3, "ending": ending}, "auto")
    collector = Collector(maker.vector(2), COUNTING, GAMMA, SEEDS)
    steps, episodes = _collect(collector, np.zeros((11, 2), np.int64))
    assert [episode for _, episode in episodes] == [Episode(36.0, 3)] * 2 + [Episode(66.0, 3)] * 2 + [
        Episode(96.0, 3)
    ] * 2
    assert [len(step.r_t) for step in steps] == [2, 2, 2, 0, 2, 2, 2, 0, 2, 2, 2]
    joined = _joined(steps)
    ends = joined.s_t[:, 1] == 3
    assert ends.any()
    np.testing.assert_array_equal(joined.discount_t == 0, ends if ending == "terminated" else np.zeros_like(ends))
    assert (joined.s_tm1[:, 0] == joined.s_t[:, 0]).all()
    np.testing.assert_array_equal(joined.s_tm1[:, 1] + 1, joined.s_t[:, 1])


def test_what_a_reset_step_pays_counts_for_no_episode() -> None:
    steps, episodes = _collect(Collector(PaidReset(), COUNTING, GAMMA, SEEDS), np.zeros((8, 1), np.int64))
    assert [episode for _, episode in episodes] == [Episode(2.0, 2)] * 3
    assert _joined(steps).r_t.tolist() == [1.0] * 6


def test_transitions_have_the_replays_types() -> None:
    collector = Collector(
        EnvironmentMaker("MountainCar-v0", {}, "sync").vector(2), Spaces((2,), np.dtype("f4"), 0, 3), GAMMA, SEEDS
    )
    collector.reset()
    transition, _ = collector.step(np.array([0, 2]))
    assert [c.dtype.name for c in transition] == ["float32", "int32", "float32", "float32", "float32"]
    np.testing.assert_array_equal(transition.a_tm1, [0, 2])


def test_transitions_are_not_overwritten_by_later_steps() -> None:
    collector = Collector(EnvironmentMaker("CartPole-v1", {}, "auto").vector(2), CARTPOLE, GAMMA, SEEDS)
    collector.reset()
    first, _ = collector.step(np.array([0, 1]))
    copy = first.s_t.copy()
    second, _ = collector.step(np.array([0, 1]))
    np.testing.assert_array_equal(first.s_t, copy)
    np.testing.assert_array_equal(second.s_tm1, copy)


def _guarded(index: int, fault: str) -> gym.Env:
    return SeededEpisodes(Guard(Counting(10, fault=fault, fault_at=2), f"environment {index}"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nan-reward", "reward nan"),
        ("inf-observation", "non-finite observation"),
        ("shape", r"shape \(5,\).*says \(2,\)"),
    ],
)
@pytest.mark.parametrize("bad_env", [0, 1])
def test_a_broken_environment_is_named_with_its_step(fault: str, words: str, bad_env: int) -> None:
    """Only environment `bad_env` breaks, at its second step."""
    envs = [partial(_guarded, i, fault if i == bad_env else "") for i in range(2)]
    collector = Collector(SyncVectorEnv(envs), COUNTING, GAMMA, SEEDS)
    collector.reset()
    collector.step(np.zeros(2, np.int64))
    with pytest.raises(JobFault, match=words) as caught:
        collector.step(np.zeros(2, np.int64))
    assert f"environment {bad_env} " in str(caught.value)
    assert "at its step 2" in str(caught.value)
    assert "fix the environment" in str(caught.value)


@pytest.mark.parametrize("cell", [-1, 4])
def test_a_discrete_observation_out_of_range_is_named(cell: int) -> None:
    """A negative one would silently pick a row of the one-hot kernel from its end."""
    from hvd_dqn.envs.maze import TreasureMaze

    maze = TreasureMaze(("..", ".T"))
    env = Guard(maze, "environment 3")
    env.reset(seed=0)
    maze.next_cell[:] = cell
    with pytest.raises(JobFault, match=rf"environment 3 returned the observation {cell} at its step 1.*0 to 3"):
        env.step(np.int64(0))


def test_the_makers_environments_are_guarded_and_numbered() -> None:
    maker = EnvironmentMaker("Counting-v0", {"fault": "nan-reward", "fault_at": 2}, "sync")
    collector = Collector(maker.vector(3, first_env=4), COUNTING, GAMMA, SEEDS)
    collector.reset()
    collector.step(np.zeros(3, np.int64))
    with pytest.raises(JobFault, match="environment 4 returned reward nan at its step 2"):
        collector.step(np.zeros(3, np.int64))
    assert [env.env.name for env in collector._vector_env.envs] == [f"environment {i}" for i in (4, 5, 6)]
    single = maker.single()
    single.reset()
    single.step(0)
    with pytest.raises(JobFault, match="an evaluation environment returned reward nan at its step 2"):
        single.step(0)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("reward", "environment 5 returned reward nan at its step 4"),
        ("observation", "environment 5 returned a non-finite observation at its step 4"),
        ("shape", r"environments 4 to 6 .*shape \(3, 7\) at its step 4: its observation space says \(3, 2\)"),
    ],
)
def test_a_broken_native_environment_is_named_with_its_step(column: str, words: str) -> None:
    collector = Collector(VectorGuard(BrokenVector(column), 4, ForeignCalls()), COUNTING, GAMMA, SEEDS)
    collector.reset()
    for _ in range(3):
        collector.step(np.zeros(3, np.int64))
    with pytest.raises(JobFault, match=words):
        collector.step(np.zeros(3, np.int64))


def test_large_finite_values_are_no_fault() -> None:
    """The sum of their squares overflows, they themselves are finite."""
    huge = np.full(3, 3e38, np.float32)
    assert ObservationCheck(gym.spaces.Box(-np.inf, np.inf, (3,), np.float32))(huge) is huge


def test_disabled_autoreset_is_refused() -> None:
    vector = SyncVectorEnv([Counting], autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(UserError, match="NEXT_STEP and SAME_STEP are supported"):
        Collector(vector, COUNTING, GAMMA, SEEDS)
