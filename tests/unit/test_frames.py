"""Laws of stacked frames: each is stored once, and every observation comes back as the environment returned it.

Other libraries put stacks together from consecutive steps, and failed where an episode was truncated: a stack reached
into the episode before (Dopamine, issue 213), and s_t was the first frame of the next one (CleanRL, issue 460).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_dqn.checkpoint.segments import decode, encode
from hvd_dqn.envs.channels_last import channels_last
from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.seeded_episodes import SeededEpisodes
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.replay.base import Refill, reader_of
from hvd_dqn.replay.prioritized import PrioritizedReplay
from hvd_dqn.replay.ring import RingReplay
from hvd_dqn.replay.rows import Rows
from hvd_dqn.transition import Transition, TransitionForm

from .whole_runs import QUICK, run

SIDE, STACK = 8, 4
UINT8 = np.dtype(np.uint8)
KINDS = {"uniform": RingReplay, "prioritized": PrioritizedReplay}


class Stamped(gym.Env[np.ndarray, int]):
    """Grey images that show their environment, episode and step; an episode is terminated or truncated at random."""

    observation_space = gym.spaces.Box(0, 255, (SIDE, SIDE), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, number: int = 0) -> None:
        self._number, self._episode = number, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._episode += 1
        self._step = 0
        self._length = int(self.np_random.integers(1, 12))
        self._truncated = bool(self.np_random.random() < 0.5)
        return self._frame(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        done = self._step == self._length
        return self._frame(), float(self._step), done and not self._truncated, done and self._truncated, {}

    def _frame(self) -> np.ndarray:
        frame = np.zeros((SIDE, SIDE), np.uint8)
        frame[0, :4] = self._number, self._episode % 256, self._episode // 256, self._step
        return frame


def _collector(num_envs: int, n_step: int, mode: AutoresetMode, seed: int) -> Collector:
    def make(number: int) -> Any:
        return lambda: SeededEpisodes(channels_last(FrameStackObservation(Stamped(number), STACK)))

    vector_env = SyncVectorEnv([make(number) for number in range(num_envs)], autoreset_mode=mode)
    spaces = Spaces((SIDE, SIDE, STACK), UINT8, 0, 2, stacked_frames=STACK)
    collector = Collector(vector_env, spaces, 0.9, EpisodeSeeds(seed), n_step=n_step)
    collector.reset()
    return collector


def _replay(kind: str, capacity: int, stacked_frames: int, shape: tuple[int, ...] = (SIDE, SIDE, STACK)) -> Any:
    form = TransitionForm(shape, UINT8, stacked_frames=stacked_frames)
    return KINDS[kind](capacity, form, np.random.default_rng(3))


def _assert_equal(left: Transition, right: Transition) -> None:
    for name, a, b in zip(Transition._fields, left, right, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@settings(max_examples=8, deadline=None)
@given(num_envs=st.integers(1, 5), capacity=st.integers(1, 60), seed=st.integers(0, 1000))
def test_a_replay_of_frames_is_bit_for_bit_one_of_whole_observations(
    kind: str, n_step: int, mode: AutoresetMode, num_envs: int, capacity: int, seed: int
) -> None:
    """Over many episodes, several times around the ring, and after a restore in the middle."""
    collector, rng = _collector(num_envs, n_step, mode, seed), np.random.default_rng(seed)
    whole, frames = (_replay(kind, capacity, stacked) for stacked in (1, STACK))
    for step in range(150):
        transitions, _ = collector.step(rng.integers(2, size=num_envs))
        for replay in (whole, frames):
            replay.add(transitions)
        if step == 75:
            other = _replay(kind, capacity, STACK)
            other.restore(frames.contents(), frames.added)
            other.load_extra_state(frames.extra_state())
            other._rng.bit_generator.state = frames._rng.bit_generator.state
            frames = other
        if len(whole) and step % 10 == 0:
            drawn = [replay.sample(2, 5) for replay in (whole, frames)]
            _assert_equal(drawn[0].transitions, drawn[1].transitions)
            np.testing.assert_array_equal(drawn[0].indices, drawn[1].indices)
            np.testing.assert_array_equal(drawn[0].probabilities, drawn[1].probabilities)
            for replay in (whole, frames):
                replay.update_priorities(drawn[0].indices, drawn[0].transitions.r_t)
    _assert_equal(whole.contents(), frames.contents())


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_no_stack_reaches_into_another_episode(n_step: int, mode: AutoresetMode) -> None:
    """A stack has the newest frames of one episode, its first one repeated; s_t is of the same episode, n steps on."""
    collector, rng = _collector(3, n_step, mode, 5), np.random.default_rng(0)
    replay = _replay("uniform", 400, STACK)
    ended = 0
    for _ in range(300):
        transitions, episodes = collector.step(rng.integers(2, size=3))
        replay.add(transitions)
        ended += len(episodes)
    assert ended > 100
    rows, last_steps = replay.sample(1, 2000).transitions, set()
    for s_tm1, s_t, discount in zip(rows.s_tm1[0], rows.s_t[0], rows.discount_t[0], strict=True):
        (before, after) = (stack[0, :4].astype(int) for stack in (s_tm1, s_t))  # [env, episode, 256 * episode, step]
        for stamps in (before, after):
            assert (stamps[:3] == before[:3, :1]).all(), "one environment, one episode"
            newest = stamps[3, -1]
            assert stamps[3].tolist() == [max(0, newest - 3 + place) for place in range(4)]
        assert 1 <= after[3, -1] - before[3, -1] <= n_step
        if after[3, -1] - before[3, -1] < n_step and discount > 0:
            last_steps.add(after[3, -1])
    assert n_step == 1 or last_steps, "truncated episodes are among them"


def _frames(rng: np.random.Generator, shape: tuple[int, ...], stacked: int, count: int) -> np.ndarray:
    """Returns different frames [F, *sides, k], the first of zeros."""
    *sides, channels = shape
    frames = rng.integers(0, 256, (count, *sides, channels // stacked)).astype(np.uint8)
    frames[0] = 0
    return frames


def _stacks(rng: np.random.Generator, frames: np.ndarray, stacked: int, rows: int) -> Transition:
    """Returns transitions whose observations stack frames that are chosen at random."""
    chosen = frames[rng.integers(len(frames), size=(2, rows, stacked))]  # [2, N, C, *sides, k]
    s = np.moveaxis(chosen, 2, -2).reshape(2, rows, *frames.shape[1:-1], stacked * frames.shape[-1])
    return Transition(s[0], np.zeros(rows, np.int32), rng.random(rows, np.float32), np.ones(rows, np.float32), s[1])


@settings(max_examples=40, deadline=None)
@given(
    shape_and_stack=st.sampled_from([((3, 5, 4), 4), ((4, 4, 2), 2), ((2, 2, 3), 3), ((3, 3, 6), 2), ((7, 8), 8)]),
    capacity=st.integers(1, 30),
    contents=st.integers(1, 12),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
)
def test_any_stacks_come_back_whatever_they_have_in_common(
    shape_and_stack: tuple[tuple[int, ...], int], capacity: int, contents: int, sizes: list[int], seed: int
) -> None:
    """Frames of any size and number, added in batches of any size, read, sampled, packed and overwritten."""
    (shape, stacked), rng = shape_and_stack, np.random.default_rng(seed)
    whole, frames = (_replay("uniform", capacity, number, shape) for number in (1, stacked))
    known = _frames(rng, shape, stacked, contents)
    for size in sizes:
        batch = _stacks(rng, known, stacked, size)
        for replay in (whole, frames):
            replay.add(batch)
        if len(whole):
            _assert_equal(whole.sample(1, 20).transitions, frames.sample(1, 20).transitions)
            numbers = whole.added - 1 - rng.permutation(len(whole))[: rng.integers(1, 10)]
            other = _stacks(rng, known, stacked, len(numbers))
            for replay in (whole, frames):
                replay.overwrite(numbers, other)
    _assert_equal(whole.contents(), frames.contents())
    rows = frames.rows(np.arange(frames.added - len(frames), frames.added))
    assert rows.frames is not None
    assert len({frame.tobytes() for frame in rows.frames}) == len(rows.frames) <= contents, "each frame once"
    again = _replay("uniform", capacity, stacked, shape)
    again.restore(rows.whole(), frames.added)
    assert encode(again.rows(np.arange(frames.added - len(frames), frames.added))) == encode(rows), "files are equal"
    assert rows.row_bytes == Rows(whole.contents()).row_bytes
    _assert_equal(decode(encode(rows), whole.empty(), len(whole)).whole(), whole.contents())
    _assert_equal(rows.part(slice(1, 3)).whole(), Transition(*(column[1:3] for column in whole.contents())))


def _episodes(steps: int, envs: int, length: int, shape: tuple[int, int] = (84, 84)) -> Any:
    """Yields batches of one-step transitions of distinct frames; all episodes are of one length."""
    rng = np.random.default_rng(0)
    s_tm1 = np.zeros((envs, *shape, STACK), np.uint8)
    for step in range(steps):
        begun = (step + np.arange(envs) * 7) % length == 0
        first = rng.integers(0, 256, (envs, *shape), np.uint8)
        s_tm1[begun] = first[begun][..., None]
        s_t = np.concatenate([s_tm1[..., 1:], rng.integers(0, 256, (envs, *shape, 1), np.uint8)], axis=-1)
        yield Transition(s_tm1, np.zeros(envs, np.int32), r_t := np.zeros(envs, np.float32), r_t, s_t)
        s_tm1 = s_t.copy()


def _alive(replay: Any) -> int:
    """Returns the frames that the pool has room for in memory that was touched."""
    return int(replay._observations._used)


@pytest.mark.parametrize("kind", KINDS)
def test_an_atari_transition_takes_at_most_7200_bytes_with_everything(kind: str) -> None:
    """Of 84 x 84 x 4; naive are 56,448. Four environments, as a replay of a million is no larger per transition."""
    replay = _replay(kind, 4000, STACK, (84, 84, STACK))
    for batch in _episodes(2000, 4, length=250):
        replay.add(batch)
    pool = replay._observations
    tables = (
        replay.nbytes - pool._frames.nbytes - pool._table.nbytes + 2 * 4 * replay.capacity
    )  # of a table of its size
    assert (_alive(replay) * pool._frames.itemsize * pool._frames.shape[1] + tables) / len(replay) <= 7200
    assert replay._form.stored_bytes <= 7200
    assert abs(replay._form.stored_bytes - 7120) < 30, "the start report's"


def test_frames_are_freed_where_no_transition_names_them() -> None:
    """Ten times around the ring, the pool holds no more than it held after the first time."""
    replay, sizes = _replay("prioritized", 500, STACK, (16, 16, STACK)), []
    for number, batch in enumerate(_episodes(1250, 4, 25, (16, 16)), 1):
        replay.add(batch)
        if number % 125 == 0:
            sizes.append(_alive(replay))
    assert sizes[-1] <= sizes[0] + 20
    assert sizes[-1] <= 500 * (1 + 1 / 25) + 4 * STACK + 20


def test_other_episodes_than_before_need_no_bound_known_before() -> None:
    """Whole observations without a frame in common take C frames each, and the pool grows to that."""
    whole, frames = (_replay("uniform", 100, stacked) for stacked in (1, STACK))
    rng = np.random.default_rng(0)
    for _ in range(6):
        batch = _stacks(rng, _frames(rng, (SIDE, SIDE, STACK), STACK, 10_000), STACK, 100)
        for replay in (whole, frames):
            replay.add(batch)
        _assert_equal(whole.contents(), frames.contents())
    assert 700 < _alive(frames) < 2000


def test_an_observation_is_compared_with_stored_ones_alone() -> None:
    """One that follows an observation whose frames have given way to others is not put together from those."""
    film = np.random.default_rng(0).integers(0, 256, (20, SIDE, SIDE), np.uint8)
    replay, r_t = _replay("uniform", 1, STACK), np.zeros(1, np.float32)
    for first, newest in ((0, 3), (1, 4), (2, 5), (3, 6), (1, 12)):
        s_tm1 = np.stack([*film[first : first + 3], film[newest]], axis=-1)[None]
        s_t = np.stack([*film[first + 1 : first + 3], film[newest], film[newest + 1]], axis=-1)[None]
        replay.add(Transition(s_tm1, r_t.astype(np.int32), r_t, r_t, s_t))
        np.testing.assert_array_equal(replay.contents().s_tm1, s_tm1)
        np.testing.assert_array_equal(replay.contents().s_t, s_t)


def test_rows_that_arrive_in_any_order_fill_a_replay_of_frames() -> None:
    source = _replay("prioritized", 200, STACK)
    for batch in _episodes(60, 4, 9, (SIDE, SIDE)):
        source.add(batch)
    source.update_priorities(np.arange(200), np.linspace(0.0, 3.0, 200, dtype=np.float32))
    target, read = _replay("prioritized", 150, STACK), reader_of(source)
    refill = Refill(target)
    refill.begin(200)
    for places in np.array_split(np.random.default_rng(0).permutation(200), 7):
        refill.put(places, read(places))
    refill.finish()
    _assert_equal(target.contents(), Transition(*(column[50:] for column in source.contents())))
    np.testing.assert_array_equal(target.extra_state()["priorities"], source.extra_state()["priorities"][50:])
    assert _alive(target) < 250


def test_a_segment_that_names_frames_it_does_not_hold_is_refused() -> None:
    replay = _replay("uniform", 20, STACK)
    for batch in _episodes(5, 2, 9, (SIDE, SIDE)):
        replay.add(batch)
    rows = replay.rows(np.arange(10))
    for number in (len(rows.frames), -1, 2**30):
        spoilt = rows.columns.s_t.copy()
        spoilt[3, 1] = number
        with pytest.raises(CheckpointError, match="name frames"):
            decode(encode(Rows(rows.columns._replace(s_t=spoilt), rows.frames)), replay.empty(), 10)
    for wrong in (rows.frames[..., 0], rows.frames.astype(np.int32), rows.frames[:, 1:]):
        with pytest.raises(CheckpointError, match="instead of"):
            decode(encode(Rows(rows.columns, wrong)), replay.empty(), 10)


def test_a_segment_of_frames_is_a_fourth_of_one_of_whole_observations() -> None:
    whole, frames = (_replay("uniform", 600, stacked, (84, 84, STACK)) for stacked in (1, STACK))
    for batch in _episodes(300, 2, 50):
        for replay in (whole, frames):
            replay.add(batch)
    sizes = [len(encode(replay.rows(np.arange(600)))) for replay in (whole, frames)]
    assert sizes[1] < sizes[0] / 4


class StampedColour(Stamped):
    """Frames of three channels that lie behind one another."""

    observation_space = gym.spaces.Box(0, 255, (40, 40, 12), np.uint8)


gym.register("Stamped-v0", Stamped)
gym.register("StampedColour-v0", StampedColour)
gym.register("Stacked-v0", lambda: FrameStackObservation(Stamped(), STACK))
gym.register("StackedNumbers-v0", lambda: FrameStackObservation(gym.make("CartPole-v1"), STACK))


@pytest.mark.parametrize(
    ("env", "stacked"),
    [("Stacked-v0", 4), ("Stamped-v0", 1), ("StackedNumbers-v0", 1), ("CartPole-v1", 1), ("StampedColour-v0", 1)],
)
def test_frames_stacked_by_gymnasiums_wrapper_are_found(env: str, stacked: int) -> None:
    assert EnvironmentMaker(env, {}, "sync").spaces().stacked_frames == stacked


@pytest.mark.parametrize(
    ("arguments", "stacked"),
    [({}, 4), ({"stack_num": 2}, 2), ({"stack_num": 1}, 1), ({"grayscale": False}, 1)],
)
def test_ataris_frames_are_found(arguments: dict[str, Any], stacked: int) -> None:
    pytest.importorskip("ale_py")
    spaces = EnvironmentMaker("ALE/Pong-v5", arguments, "auto").spaces()
    assert spaces.stacked_frames == stacked
    assert stacked == 1 or spaces.transition_form.frame_shape == (84, 84, 1)


def test_stacks_of_other_environments_are_given_by_a_flag() -> None:
    colour = EnvironmentMaker("StampedColour-v0", {}, "sync").spaces()
    assert colour.stacking(4).transition_form.frame_shape == (40, 40, 3)
    assert colour.stacking(0) == colour
    with pytest.raises(
        UserError, match=r"--stacked-frames 5 does not divide the 12 channels .*: give 3 or 4 or 6 or 12"
    ):
        colour.stacking(5)
    with pytest.raises(UserError, match="give 1, or 0"):
        Spaces((), np.dtype(np.int32), 7, 2).stacking(2)
    assert EnvironmentMaker("Stacked-v0", {}, "sync").spaces().stacking(1).stacked_frames == 1


STACKED = """
import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation


class Noise(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (40, 40), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._frame(), {}

    def step(self, action):
        return self._frame(), 1.0, bool(self.np_random.random() < 0.1), False, {}

    def _frame(self):
        return self.np_random.integers(0, 256, (40, 40), np.uint8)


gym.register("StackedNoise-v0", lambda: FrameStackObservation(Noise(), 4))
"""


@pytest.mark.parametrize(
    ("flags", "mebibytes"), [((), 16), (("--stacked-frames", "2"), 31), (("--stacked-frames", "1"), 122)]
)
def test_the_start_report_shows_what_frames_take(flags: tuple[str, ...], mebibytes: int, tmp_path: Path) -> None:
    """Of 10,000 transitions with four frames of 1,600 bytes: 16 MB, 32 or 128."""
    (tmp_path / "noise.py").write_text(STACKED)
    env = ("--env", f"{tmp_path / 'noise.py'}:StackedNoise-v0", "--network", "mlp", "--replay-capacity", "10000")
    command: list[str | Path] = [*QUICK, *env, *flags, "--runs-dir", tmp_path, "--name", "run"]
    ended = run(*command, "--total-env-steps", "100")
    assert ended.code == 0, ended.printed
    assert f"{mebibytes} MiB of memory in all when full" in ended.printed
    assert ("each stored once" in ended.printed) == (flags[-1:] != ("1",))
    directory = next(tmp_path.glob("*/run"))
    resumed = run("--resume", directory, "--total-env-steps", "150", "--stacked-frames", "1")
    assert (resumed.code, "resumed from the checkpoint at env step 100" in resumed.printed) == (0, True)


def test_a_number_of_frames_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    ended = run(*QUICK, "--runs-dir", tmp_path, "--stacked-frames", "3")
    assert (ended.code, "--stacked-frames 3 does not divide the 4 channels" in ended.printed) == (2, True)
    ended = run(*QUICK, "--runs-dir", tmp_path, "--stacked-frames", "-1")
    assert (ended.code, "--stacked-frames is -1: give 0 or more" in ended.printed) == (2, True)
    assert not list(tmp_path.iterdir())
