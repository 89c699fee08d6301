"""Laws of open episodes: seeded one by one, saved without a trace, and continued as if nothing had happened."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics

from hvd_dqn.envs.collector import Collector, Episode
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.open_episode import CollectorState
from hvd_dqn.envs.seeded_episodes import SeededEpisodes
from hvd_dqn.errors import CheckpointError, UserError

from .toy_environments import ResumableVector, register_toys

register_toys()
ENVS = 3


def _collector(
    env: str, vectorization: str = "sync", num_envs: int = ENVS, first_env: int = 0, **arguments: Any
) -> Collector:
    maker = EnvironmentMaker(env, arguments, vectorization)
    return Collector(maker.vector(num_envs), maker.spaces(), 0.99, EpisodeSeeds(7, first_env))


def _num_actions(env: str) -> int:
    return EnvironmentMaker(env, {}, "sync").spaces().num_actions


def _through_json(state: CollectorState) -> CollectorState:
    return CollectorState.from_json(json.loads(json.dumps(state.to_json())))


def _lived(collector: Collector, actions: np.ndarray) -> list[tuple[list[bytes], list[Episode]]]:
    """Returns what each step gave, as bytes."""
    steps = []
    for row in actions:
        transition, episodes = collector.step(row)
        steps.append(([column.tobytes() for column in transition], episodes))
    return steps


CASES = [
    *(("CartPole-v1", "sync"), ("CartPole-v1", "native"), ("CartPole-v1", "async"), ("Acrobot-v1", "sync")),
    *(("LunarLander-v3", "sync"), ("hvd_dqn/TreasureMaze-v0", "sync"), ("Wandering-v0", "sync")),
    *(("Resumable-v0", "sync"), ("Resumable-v0", "async")),
    ("ResumableVector-v0", "native"),
    *(("Normalizing-v0", "sync"), ("Normalizing-v0", "async"), ("NormalizingResumable-v0", "sync")),
]


@pytest.mark.parametrize(("env", "vectorization"), CASES)
def test_a_restored_collector_goes_on_as_if_nothing_had_happened(env: str, vectorization: str) -> None:
    """Saved after many different steps, some of them an episode's last: what follows is the same, bit for bit."""
    arguments = {"max_episode_steps": 25} if env != "hvd_dqn/TreasureMaze-v0" else {}
    actions = np.random.default_rng(0).integers(_num_actions(env), size=(90, ENVS))
    whole = _collector(env, vectorization, **arguments)
    whole.reset()
    states, lived = [], []
    for row in actions:
        states.append(_through_json(whole.state()))
        lived += _lived(whole, row[None])
    whole.close()
    assert env.startswith("hvd_dqn") or any(episode.ended for state in states for episode in state.episodes)
    for place in range(0, 90, 29 if vectorization == "async" else 7):
        resumed = _collector(env, vectorization, **arguments)
        assert resumed.restore([*states[place].episodes], states[place].generator, 10**6) == ENVS
        assert _through_json(resumed.state()).to_json() == states[place].to_json()
        assert _lived(resumed, actions[place:]) == lived[place:], place
        resumed.close()


@pytest.mark.parametrize(("env", "vectorization"), [("Wandering-v0", "sync"), ("Resumable-v0", "sync")])
def test_saving_leaves_no_trace(env: str, vectorization: str) -> None:
    actions = np.random.default_rng(1).integers(300, size=(60, ENVS))
    watched, alone = _collector(env, vectorization), _collector(env, vectorization)
    watched.reset()
    alone.reset()
    for row in actions:
        watched.state()
        assert _lived(watched, row[None]) == _lived(alone, row[None])


def test_cartpoles_native_arrays_are_saved_without_a_trace() -> None:
    watched, alone = _collector("CartPole-v1", "native"), _collector("CartPole-v1", "native")
    watched.reset()
    alone.reset()
    for row in np.random.default_rng(1).integers(2, size=(60, ENVS)):
        watched.state()
        assert _lived(watched, row[None]) == _lived(alone, row[None])


@pytest.mark.parametrize("shares", [(6,), (2, 4), (1, 2, 3)])
def test_a_global_environment_lives_the_same_life_on_any_rank(shares: tuple[int, ...]) -> None:
    """Whatever the number of ranks, an environment sees the same episodes; also from saved ones dealt out anew."""
    actions = np.random.default_rng(2).integers(300, size=(80, 6))

    def observations(parts: list[Collector], rows: np.ndarray) -> list[np.ndarray]:
        seen = []
        for row in rows:
            first = 0
            for part in parts:
                part.step(row[first : first + part.num_envs])
                first += part.num_envs
            seen.append(np.concatenate([part.observation for part in parts]))
        return seen

    one = [_collector("Wandering-v0", num_envs=6)]
    parts = [
        _collector("Wandering-v0", num_envs=share, first_env=sum(shares[:rank])) for rank, share in enumerate(shares)
    ]
    for part in (*one, *parts):
        part.reset()
    np.testing.assert_array_equal(observations(one, actions[:40]), observations(parts, actions[:40]))
    episodes = one[0].state().episodes
    for rank, part in enumerate(parts):
        first = sum(shares[:rank])
        part.restore([*episodes[first : first + part.num_envs]], None, 0)
    np.testing.assert_array_equal(observations(one, actions[40:]), observations(parts, actions[40:]))


def test_every_episode_has_other_seeds_and_a_new_start_has_others_again() -> None:
    starts = set()
    collector = _collector("Wandering-v0", max_episode_steps=3)
    for first_number in (0, 40):
        collector.reset(first_number)
        for step in range(40):
            if step % 4 == 0:
                starts |= {observation.tobytes() for observation in collector.observation}
            collector.step(np.full(ENVS, 150))
    assert len(starts) == 2 * 10 * ENVS


def test_a_part_of_the_episodes_goes_on_and_the_others_begin() -> None:
    before = _collector("Wandering-v0")
    before.reset()
    for row in np.random.default_rng(3).integers(300, size=(10, ENVS)):
        before.step(row)
    saved = before.state().episodes
    after = _collector("Wandering-v0", num_envs=ENVS + 1)
    assert after.restore([saved[0], None, saved[2], None], None, 500) == 2
    np.testing.assert_array_equal(after.observation[[0, 2]], before.observation[[0, 2]])
    fresh = _collector("Wandering-v0", num_envs=ENVS + 1)
    fresh.reset(500)
    np.testing.assert_array_equal(after.observation[[1, 3]], fresh.observation[[1, 3]])
    assert [episode.number for episode in after.state().episodes] == [0, 500, 0, 500]


def test_cartpoles_arrays_go_on_under_another_generator() -> None:
    """Dealt out to another number of ranks: the arrays are the same, the generator is seeded anew."""
    before = _collector("CartPole-v1", "native")
    before.reset()
    for row in np.random.default_rng(3).integers(2, size=(5, ENVS)):
        before.step(row)
    state = before.state()
    after = _collector("CartPole-v1", "native", num_envs=2, first_env=1)
    assert after.restore([*state.episodes[1:]], None, 500) == 2
    np.testing.assert_array_equal(after.observation, before.observation[1:])
    after.step(np.zeros(2, np.int64))
    before.step(np.zeros(ENVS, np.int64))
    np.testing.assert_array_equal(after.observation, before.observation[1:])
    assert after.state().generator != state.generator


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("observation", r"the observation is \[.*\]; saved was the observation \["),
        ("reward", r"the return is .*, not "),
        ("end", r"the episode ends after 6 of them"),
    ],
)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_that_is_not_deterministic_is_named_with_the_remedy(
    kind: str, words: str, vectorization: str
) -> None:
    """Or has been changed since it was saved, so that it ends where it did not end."""
    as_saved = "" if kind == "end" else kind
    collector = _collector("Forgetful-v0", vectorization, num_envs=1, first_env=4, kind=as_saved)
    collector.reset()
    for _ in range(8):
        collector.step(np.array([150]))
    state = collector.state()
    collector.close()
    resumed = _collector("Forgetful-v0", vectorization, num_envs=1, first_env=4, kind=kind)
    with pytest.raises(UserError, match=words) as caught:
        resumed.restore([*state.episodes], None, 0)
    resumed.close()
    for part in (
        "environment 4 is not deterministic",
        "8 actions of its open episode 0",
        "--checkpoint-boundary reset",
    ):
        assert part in str(caught.value)


def test_a_state_that_is_not_plain_is_refused_before_the_run_begins() -> None:
    with pytest.raises(UserError, match=r"Unsaveable.*get_state\(\).*\['engine'\]\[1\] is a object.*remove it"):
        _collector("Unsaveable-v0").reset()


@pytest.mark.parametrize("env", ["Wandering-v0", "Resumable-v0"])
def test_only_what_offers_no_state_is_replayed(env: str) -> None:
    before = _collector(env, num_envs=1, max_episode_steps=1000)
    before.reset()
    for _ in range(20):
        before.step(np.array([150]))
    state = before.state()
    assert (state.episodes[0].actions is None) == (env == "Resumable-v0")
    kind = type(before._vector_env.envs[0].unwrapped)
    after = _collector(env, num_envs=1, max_episode_steps=1000)
    kind.steps_taken = 0
    after.restore([*state.episodes], None, 0)
    assert kind.steps_taken == (20 if env == "Wandering-v0" else 0)


@pytest.mark.parametrize("env", ["Wandering-v0", "Resumable-v0"])
def test_wrappers_states_are_those_of_the_open_episode(env: str) -> None:
    """The time limit cuts at the same step, and statistics count from the episode's beginning."""

    def collector() -> Collector:
        vector = SyncVectorEnv([lambda: SeededEpisodes(RecordEpisodeStatistics(gym.make(env, max_episode_steps=12)))])
        return Collector(vector, EnvironmentMaker(env, {}, "sync").spaces(), 0.99, EpisodeSeeds(3))

    before, after = collector(), collector()
    before.reset()
    for _ in range(7):
        before.step(np.array([150]))
    after.restore([*_through_json(before.state()).episodes], None, 0)
    for part in (before, after):
        ended = [part.step(np.array([150]))[1] for _ in range(5)]
        assert [len(episodes) for episodes in ended] == [0, 0, 0, 0, 1]
        assert ended[-1][0].length == 12
        statistics = part._vector_env.envs[0].env
        assert list(statistics.length_queue) == [12]
        assert list(statistics.return_queue) == [ended[-1][0].episode_return]


def test_a_state_below_an_unknown_wrapper_is_not_enough() -> None:
    """Of stacked frames nobody knows how to save them: the actions are replayed through the wrapper."""
    env = SeededEpisodes(FrameStackObservation(gym.make("Resumable-v0"), 2))
    assert not env.saves_state
    assert SeededEpisodes(gym.make("Resumable-v0")).saves_state
    assert not SeededEpisodes(gym.make("Wandering-v0")).saves_state


def test_an_episode_of_another_kind_of_vector_environment_begins_anew() -> None:
    native, sync = (_collector("CartPole-v1", kind) for kind in ("native", "sync"))
    native.reset()
    sync.reset()
    assert sync.restore([*native.state().episodes], native.state().generator, 9) == 0
    assert [episode.number for episode in sync.state().episodes] == [9] * ENVS
    assert native.restore([*sync.state().episodes], None, 9) == 0


@pytest.mark.parametrize(("saved", "restored"), [("native", "sync"), ("sync", "native")])
def test_a_state_of_another_kind_of_vector_environment_begins_anew(saved: str, restored: str) -> None:
    before, after = (_collector("ResumableVector-v0", kind, max_episode_steps=25) for kind in (saved, restored))
    before.reset()
    before.step(np.full(ENVS, 150))
    state = before.state()
    assert all(episode.state is not None for episode in state.episodes)
    assert after.restore([*state.episodes], None, 9) == 0
    assert [episode.number for episode in after.state().episodes] == [9] * ENVS


def test_a_vector_environment_gives_one_state_for_each_member() -> None:
    spaces = EnvironmentMaker("Resumable-v0", {}, "sync").spaces()
    collector = Collector(ResumableVector(ENVS, kept=2), spaces, 0.99, EpisodeSeeds(7))
    with pytest.raises(
        UserError, match=r"get_state\(\) of the native vector environment must return a list of 3 states"
    ):
        collector.reset()


def test_environments_that_cannot_be_saved_keep_nothing_and_begin_anew() -> None:
    pytest.importorskip("envpool")
    pool = _collector("CartPole-v1", "envpool")
    pool.reset()
    state = pool.state()
    assert state == CollectorState([], None)
    assert _through_json(state) == state
    assert pool.restore([None] * ENVS, None, 9) == 0
    pool.close()


@pytest.mark.parametrize(
    "damage",
    [
        {"number": -1},
        {"length": 4},
        {"ended": 1},
        {"episode_return": "much"},
        {"observation": None},
        {"observation": {"array": 1}},
        {"actions": {"tuple": []}},
        {"state": {"array": ["<f8", [10**9], ""]}},
        {"unknown": 1},
    ],
)
def test_damaged_episodes_are_noticed(damage: dict[str, Any]) -> None:
    collector = _collector("Wandering-v0")
    collector.reset()
    collector.step(np.zeros(ENVS, np.int64))
    record = collector.state().to_json()
    CollectorState.from_json(record)
    record["episodes"][1] |= damage
    with pytest.raises(CheckpointError, match="open episode"):
        CollectorState.from_json(record)


@pytest.mark.parametrize("record", [None, [], {"episodes": 3, "generator": None}, {"episodes": []}])
def test_a_state_that_is_none_is_noticed(record: Any) -> None:
    with pytest.raises(CheckpointError, match="open episodes"):
        CollectorState.from_json(record)


def test_environments_in_processes_of_their_own_know_their_numbers() -> None:
    """Gymnasium makes one environment more than there are, to look at its spaces, and then forks."""
    vector = EnvironmentMaker("Wandering-v0", {}, "async").vector(3)
    assert vector.get_attr("name") == ("environment 0", "environment 1", "environment 2")
    vector.close()
