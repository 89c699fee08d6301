"""An environment is foreign code: what it raises or returns is named, cast or ignored, and breaks nothing."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.foreign import ForeignCalls
from hvd_dqn.envs.guard import Guard, VectorGuard
from hvd_dqn.envs.seeded_episodes import SeededEpisodes
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.envs.workers import Workers
from hvd_dqn.errors import JobFault, UserError

SPACES = Spaces((2,), np.dtype(np.float32), 0, 2)
BOX = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
ACTIONS = np.zeros(3, np.int64)


class Odd(gym.Env[Any, Any]):
    """Episodes of four steps; does as it is told instead of its proper `reset`, `step`, `close` or `get_state`."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, space: gym.Space[Any] = BOX, **instead: Callable[[], Any]) -> None:
        self.observation_space = space
        self.instead = instead
        self.age = 0
        if "get_state" in instead:
            self.get_state = instead["get_state"]
            self.set_state = lambda state: None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.age = 0
        return self.instead["reset"]() if "reset" in self.instead else (np.zeros(2, np.float32), {})

    def step(self, action: Any) -> Any:
        self.age += 1
        if "step" in self.instead:
            return self.instead["step"]()
        return np.full(2, self.age, np.float32), 1.0, self.age == 4, False, {}

    def close(self) -> None:
        self.instead.get("close", lambda: None)()


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raiser(error: BaseException) -> Callable[[], Any]:
    def throw() -> Any:
        raise error

    return throw


def _member(index: int, instead: dict[str, Callable[[], Any]]) -> gym.Env[Any, Any]:
    proper = {"get_state": lambda: 0} if "get_state" in instead else {}
    return SeededEpisodes(Guard(Odd(**(instead if index == 1 else proper)), f"environment {index}"))


@contextlib.contextmanager
def _three(kind: str, **instead: Callable[[], Any]) -> Iterator[Collector]:
    """Yields a collector of environments 0 to 2, the second of which is odd."""
    members = [functools.partial(_member, index, instead) for index in range(3)]
    vector: Any
    if kind == "async":
        vector = Workers(members, [f"environment {index}" for index in range(3)], ForeignCalls())
    else:
        vector = SyncVectorEnv(members, copy=False)
    collector = Collector(vector, SPACES, 0.9, EpisodeSeeds())
    try:
        yield collector
    finally:
        collector.close()


def _begin_and_step(kind: str, **instead: Callable[[], Any]) -> None:
    with _three(kind, **instead) as collector:
        collector.reset()
        collector.step(ACTIONS)


def _reset_and_step(env: gym.Env[Any, Any]) -> None:
    env.reset()
    env.step(0)


ERRORS = [RuntimeError("gone"), SystemExit(0), KeyboardInterrupt(), _Unspeakable(), MemoryError()]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("call", ["reset", "step", "get_state"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_an_environment_raises_is_a_fault_that_names_it_and_the_call(
    kind: str, call: str, error: BaseException
) -> None:
    with pytest.raises(JobFault) as caught:
        _begin_and_step(kind, **{call: _raiser(error)})
    text = str(caught.value)
    assert text.startswith(f"environment 1 raised {type(error).__module__.replace('builtins', '')}".rstrip())
    assert type(error).__name__ in text
    assert f"in {call}()" in text
    assert "at its step 1" in text or call != "step"
    assert "test_foreign_environments.py" in text, "the environment's own lines are shown"
    assert "guard.py" not in text
    assert "Traceback" not in text


INFOS = [{"x": np.zeros(2)}, {"x": np.zeros(3)}, {"x": "text"}, {"x": None}, {}, {"y": 1}, {"x": 1.5}, {7: 8}, None, 5]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_infos_cannot_break_a_run(kind: str) -> None:
    """Their keys, types and shapes change from step to step."""
    infos = iter(INFOS * 9)
    with _three(
        kind,
        step=lambda: (np.ones(2, np.float32), 1.0, False, False, next(infos)),
        reset=lambda: (np.zeros(2, np.float32), next(infos)),
    ) as collector:
        collector.reset()
        for _ in range(2 * len(INFOS)):
            collector.step(ACTIONS)


@pytest.mark.parametrize("close", [_raiser(RuntimeError("lost")), _raiser(SystemExit(3)), threading.Event().wait])
def test_closing_is_bounded_and_costs_one_warning(close: Any, capfd: pytest.CaptureFixture[str]) -> None:
    calls = ForeignCalls()
    calls._close_seconds = 0.2
    envs = [Guard(Odd(close=close), f"environment {index}", calls) for index in range(20)]
    since = time.monotonic()
    for env in envs:
        env.close()
    assert time.monotonic() - since < 5.0
    warning = capfd.readouterr().err
    assert warning.count("hvd_dqn: ") == 1
    assert "close() of environment 0" in warning


REFUSED: dict[str, tuple[Any, str]] = {
    "another shape": (np.zeros(5, np.float32), r"shape \(5,\).*says \(2,\)"),
    "a scalar": (1.0, r"shape \(\).*says \(2,\)"),
    "nothing": (None, r"says \(2,\)"),
    "unequal rows": ([[1.0], [1.0, 2.0]], "must be an array"),
    "text": (np.array(["a", "b"]), "dtype <U1.*says float32"),
    "objects": (np.array([None, 1.0]), "dtype object.*says float32"),
    "complex": (np.zeros(2, np.complex64), "dtype complex64.*says float32"),
    "NaN in a list": ([0.0, float("nan")], "non-finite observation"),
    "finite in float64 alone": (np.array([1e300, -1e300]), "non-finite observation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_observations_that_do_not_fit_their_space_are_named(name: str) -> None:
    observation, words = REFUSED[name]
    env = Guard(Odd(step=lambda: (observation, 0.0, False, False, {})), "environment 7")
    env.reset()
    with pytest.raises(
        JobFault, match=r"(?s)environment 7 returned .* at its step 1: .*; fix the environment"
    ) as caught:
        env.step(0)
    assert caught.match(words)


@pytest.mark.parametrize(
    ("dtype", "given", "fits"),
    [
        (np.uint8, np.int64, False),
        (np.int64, np.float64, False),
        (np.int32, np.int64, True),
        (np.float32, np.float64, True),
        (np.float32, np.int64, True),
        (np.float64, np.float32, True),
    ],
)
def test_a_related_dtype_is_cast_and_another_kind_is_named(dtype: Any, given: Any, fits: bool) -> None:
    space = gym.spaces.Box(0, 100, (2,), dtype)
    env = Guard(Odd(space, reset=lambda: (np.array([3, 4], given), {})), "environment 7")
    if fits:
        observation, _ = env.reset()
        assert observation.dtype == dtype
        assert observation.tolist() == [3, 4]
    else:
        words = f"dtype {np.dtype(given)} at its step 0: its observation space says {np.dtype(dtype)}"
        with pytest.raises(JobFault, match=words):
            env.reset()


def test_a_cast_that_would_change_a_value_is_named() -> None:
    space = gym.spaces.Box(0, 100, (2,), np.int32)
    with pytest.raises(JobFault, match="says int32"):
        Guard(Odd(space, reset=lambda: (np.array([2**40, 0]), {})), "environment 7").reset()


@pytest.mark.parametrize("reward", [None, "much", 1e39, -1e39, float("nan"), np.float32("inf"), np.zeros(2)])
def test_rewards_that_are_no_finite_numbers_are_named(reward: Any) -> None:
    env = Guard(Odd(step=lambda: (np.zeros(2, np.float32), reward, False, False, {})), "environment 7")
    with pytest.raises(JobFault, match=r"environment 7 returned (a )?reward .* at its step 1"):
        env.step(0)


@pytest.mark.parametrize("reward", [1, np.float32(1), np.array(1.0), True])
def test_rewards_of_any_number_are_taken(reward: Any) -> None:
    env = Guard(Odd(step=lambda: (np.zeros(2, np.float32), reward, np.False_, 0, {})), "environment 7")
    assert [type(value) for value in env.step(0)[1:4]] == [float, bool, bool]


@pytest.mark.parametrize("flag", ["False", b"", float("nan"), [True, False], [], np.zeros(2), {}, object()])
def test_flags_that_are_neither_true_nor_false_are_named(flag: Any) -> None:
    """Python takes each object for true or false: "False" would end each step's episode."""
    for flags in ((flag, False), (False, flag)):
        answer = (np.zeros(2, np.float32), 1.0, *flags, {})
        env = Guard(Odd(step=functools.partial(tuple, answer)), "environment 7")
        with pytest.raises(JobFault, match=r"environment 7 returned an? \w+ as terminated or truncated at its step 1"):
            env.step(0)


@pytest.mark.parametrize("true", [True, 1, 1.0, np.True_, np.array(True), np.array([1]), [True]])
def test_flags_may_be_of_any_kind_of_number(true: Any) -> None:
    env = Guard(Odd(step=lambda: (np.zeros(2, np.float32), 1.0, true, None, {})), "environment 7")
    assert [value is flag for value, flag in zip(env.step(0)[2:4], (True, False), strict=True)] == [True, True]


OLD: dict[str, dict[str, Callable[[], Any]]] = {
    "reset gives the observation alone": {"reset": lambda: np.zeros(2, np.float32)},
    "step gives four values": {"step": lambda: (np.zeros(2, np.float32), 1.0, False, {})},
    "step gives nothing": {"step": lambda: None},
}


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("limit", [None, 5])
def test_the_older_interface_is_refused_with_what_to_wrap_it_in(name: str, limit: int | None) -> None:
    """Also where Gymnasium's own wrapper is the first to stumble over it."""
    odd: gym.Env[Any, Any] = Odd(**OLD[name])
    env = Guard(wrappers.TimeLimit(odd, limit) if limit else odd, "environment 7")
    with pytest.raises(JobFault, match=r"(?s)environment 7 .*shimmy") as caught:
        _reset_and_step(env)
    assert "Traceback" not in str(caught.value)


class Vector(VectorEnv[Any, Any, Any]):
    """Two environments in one buffer, with whatever metadata, flags and infos; the episode of the second ends."""

    def __init__(self, mode: Any = AutoresetMode.NEXT_STEP, info: Any = None, flags: Any = np.bool_) -> None:
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.num_envs = 2
        self.single_observation_space, self.single_action_space = BOX, gym.spaces.Discrete(2)
        self._buffer = np.zeros((2, 2), np.float32)
        self._info, self._flags = info, flags

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._buffer[:] = 0
        return self._buffer, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        self._buffer += 1
        over = np.array([0, self._buffer[1, 1] % 3 == 2], self._flags)
        return self._buffer, np.ones(2, np.float32), over, np.zeros(2, self._flags), self._info


def _collector(vector: Vector) -> Collector:
    collector = Collector(VectorGuard(vector, 4, ForeignCalls()), SPACES, 0.5, EpisodeSeeds())
    collector.reset()
    return collector


@pytest.mark.parametrize("flags", [np.bool_, np.uint8, np.int64, np.float32])
def test_a_vector_environments_buffer_is_copied_and_its_flags_may_be_of_any_dtype(flags: Any) -> None:
    collector = _collector(Vector(flags=flags))
    steps = [collector.step(np.zeros(2, np.int64))[0] for _ in range(4)]
    assert [step.s_tm1[0, 0] for step in steps] == [0, 1, 2, 3]
    assert [step.s_t[0, 0] for step in steps] == [1, 2, 3, 4]
    assert [step.discount_t.tolist() for step in steps] == [[0.5, 0.5], [0.5, 0.0], [0.5], [0.5, 0.5]]


@pytest.mark.parametrize("mode", ["SameStep", AutoresetMode.SAME_STEP])
def test_an_autoreset_mode_may_be_given_by_its_text(mode: Any) -> None:
    last = np.array([None, np.full(2, 9, np.float32)], object)
    collector = _collector(Vector(mode, {"final_obs": last, 5: object()}))
    steps = [collector.step(np.zeros(2, np.int64))[0] for _ in range(3)]
    assert [step.s_t[1].tolist() for step in steps] == [[1, 1], [9, 9], [3, 3]]


@pytest.mark.parametrize("mode", [None, "SomeStep", AutoresetMode.DISABLED, 3])
def test_a_vector_environment_must_say_when_it_resets(mode: Any) -> None:
    with pytest.raises(UserError, match=r"autoreset_mode.*NEXT_STEP.*--vectorization sync"):
        _collector(Vector(mode))


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"final_observation": 1}, r"no 'final_obs' at its step 2, only 'final_observation': return .*final_obs"),
        ({}, r"no 'final_obs' at its step 2, only nothing: return .*final_obs"),
        (None, r"raised TypeError.* infos of its step 2"),
        ({"final_obs": [None, np.zeros(9)]}, r"environment 5 returned .*shape \(9,\) at its step 2"),
        ({"final_obs": 3}, r"raised TypeError.* infos of its step 2"),
    ],
)
def test_a_missing_or_unfit_final_observation_is_named(info: Any, words: str) -> None:
    collector = _collector(Vector("SameStep", info))
    collector.step(np.zeros(2, np.int64))
    with pytest.raises(JobFault, match=rf"(?s){words}"):
        collector.step(np.zeros(2, np.int64))


def test_a_killed_process_of_an_environment_is_named() -> None:
    with _three("async") as collector:
        collector.reset()
        victim = collector._vector_env.processes[1].pid
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(JobFault, match=r"process of environment 1 has died \(killed by SIGKILL\)"):
            collector.step(ACTIONS)


@pytest.mark.parametrize("call", ["reset", "step"])
def test_an_environment_that_ends_its_process_is_named(call: str) -> None:
    with pytest.raises(JobFault, match=r"process of environment 1 has died \(exit code 0\)"):
        _begin_and_step("async", **{call: lambda: os._exit(0)})


@pytest.mark.parametrize("call", ["reset", "step"])
@pytest.mark.parametrize("raises", [False, True])
def test_a_process_that_an_environment_forks_does_not_return_to_the_job(call: str, raises: bool) -> None:
    """It would train on, in the same run directory."""
    children, home = list[int](), os.getpid()

    def fork() -> Any:
        children.append(os.fork())
        if children[-1] == 0 and raises:
            raise RuntimeError("lost")
        observation = np.zeros(2, np.float32)
        return (observation, {}) if call == "reset" else (observation, 1.0, False, False, {})

    env = Guard(Odd(**{call: fork}), "environment 7")
    try:
        getattr(env, call)(*((0,) if call == "step" else ()))
    finally:
        if os.getpid() != home:
            os._exit(42)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 1


def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the ranks, the processes survive SIGTERM."""
    monkeypatch.setattr("hvd_dqn.envs.foreign._CLOSE_SECONDS", 0.2)
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with _three("async", close=threading.Event().wait) as collector:
            collector.reset()
            processes = collector._vector_env.processes
        assert not any(process.is_alive() for process in processes)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_environment_that_cannot_be_made_in_its_process_is_named() -> None:
    def member(index: int, home: int = os.getpid()) -> gym.Env[Any, Any]:
        if index == 1 and os.getpid() != home:
            raise UserError("environment 1: no licence")
        return Guard(Odd(), f"environment {index}")

    names = [f"environment {index}" for index in range(3)]
    with pytest.raises(UserError, match="environment 1: no licence"):
        Workers([functools.partial(member, index) for index in range(3)], names, ForeignCalls())


def test_a_reset_without_a_seed_is_the_older_interface() -> None:
    class WithoutSeed(Odd):
        def reset(self) -> Any:  # type: ignore[override]
            return np.zeros(2, np.float32), {}

    with pytest.raises(JobFault, match=r"(?s)environment 7 .*shimmy"):
        Guard(WithoutSeed(), "environment 7").reset(seed=1)


def test_the_running_call_is_known() -> None:
    """The watchdog's message names it."""
    calls, seen = ForeignCalls(), list[str]()

    def step() -> Any:
        seen.append(str(calls))
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def reset() -> Any:
        seen.append(str(calls))
        return np.zeros(2, np.float32), {}

    _reset_and_step(Guard(Odd(step=step, reset=reset), "environment 7", calls))
    assert seen == ["reset() of environment 7", "step() of environment 7"]
    assert str(calls) == ""
