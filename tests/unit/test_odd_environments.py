"""Laws of whole runs of environments that do what no environment should: the run ends well, or says why it does not."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hostile_envs import Walk

import train
from hvd_dqn.envs import foreign
from hvd_dqn.envs.guard import Guard
from hvd_dqn.envs.workers import Workers
from hvd_dqn.errors import EXIT_REQUEUE, EXIT_USER_ERROR
from hvd_dqn.run import leaving
from hvd_dqn.training import evaluation
from hvd_dqn.training.job import Job

from .whole_runs import QUICK, Planned, run, run_odd, run_planned


class ClosesBadly(Walk):
    """Cannot be closed, `how` says in which way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    def close(self) -> None:
        if self._how == "hangs":
            threading.Event().wait()
        if self._how == "always" or self._life > 0:
            raise RuntimeError("connection lost")


def test_episodes_that_never_end_are_cut_off_at_the_default_limit_and_warned_about_once(tmp_path: Path) -> None:
    """The last evaluation of the training and the final one have an episode of 27,000 steps each."""
    once = ("--evaluation-period", "60", "--evaluation-episodes", "1", "--env-kwargs", '{"length": 1000000000}')
    ended = run_planned(lambda step: None, tmp_path, *once)
    assert ended.code == 0, ended.printed
    assert Planned.steps == 60 + 2 * 27_000
    warning = "1 of 1 evaluation episodes did not end within --evaluation-step-limit and were cut off there"
    assert ended.printed.count(warning) == 1


@pytest.mark.parametrize("how", ["always", "after use", "hangs"])
def test_an_environment_that_cannot_be_closed_costs_a_warning_and_not_the_run(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the next job in its run directory."""
    monkeypatch.setattr(foreign, "_CLOSE_SECONDS", 0.2)
    ended = run_odd(ClosesBadly, tmp_path, "--env-kwargs", f'{{"how": "{how}"}}')
    resumed = run("--resume", tmp_path / "Odd-v0" / "a", "--total-env-steps", "100")
    for job in (ended, resumed):
        assert job.code == 0, job.printed
        assert "Greedy evaluation" in job.stdout
        assert len(re.findall(r"close\(\) of .*: ignored, and not reported again", job.printed)) == 1


def test_the_limits_of_closing_and_of_leaving_add_up_to_less_than_ten_seconds() -> None:
    """Whoever waits for the end of a job whose environments hang in both."""
    assert foreign._CLOSE_SECONDS + leaving._SECONDS < 10.0


def test_processes_of_environments_and_others_share_the_time_for_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not end uses up the time of an environment that is closed after it."""
    monkeypatch.setattr(foreign, "_CLOSE_SECONDS", 0.5)
    calls = foreign.ForeignCalls()
    hanging = functools.partial(ClosesBadly, "hangs")
    workers = Workers([lambda: Guard(hanging(), "environment 0", foreign.ForeignCalls())], ["environment 0"], calls)
    workers.close()
    with calls.closing() as seconds:
        assert seconds == 0.01


LEAVES = """
import multiprocessing, os, threading, time
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

def leave() -> None:
    threading.Thread(target=time.sleep, args=(60,), name="simulator").start()
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), name="engine")
    process.start()
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(f"left {process.pid} {child}", flush=True)

class Leaves(CartPoleEnv):
    def step(self, action):
        global leave
        leave()
        leave = lambda: None
        return super().step(action)

gym.register("Leaves-v0", entry_point=Leaves, max_episode_steps=20)
"""


def test_a_run_ends_well_whatever_its_environment_leaves_running(tmp_path: Path) -> None:
    """A thread, a process of multiprocessing, and a forked child, while which still lives the run is resumed."""
    (tmp_path / "leaves.py").write_text(LEAVES)
    place = ("--env", f"{tmp_path}/leaves.py:Leaves-v0", "--runs-dir", tmp_path, "--name", "a")
    command: list[str | Path] = [sys.executable, train.__file__, *QUICK, *place, "--total-env-steps", "60"]
    with (tmp_path / "log").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=300).returncode
    printed = (tmp_path / "log").read_text()
    left = [int(pid) for line in re.findall(r"^left (.*)", printed, re.MULTILINE) for pid in line.split()]
    try:
        assert code == 0, printed
        assert "Greedy evaluation" in printed
        assert printed.count("does not wait for what the environment left: simulator, engine") == 1
        assert "Traceback" not in printed
        (tmp_path / "leaves.py").write_text(LEAVES.replace("        leave()\n", ""))
        (directory,) = tmp_path.glob("*/a")
        resumed = run("--resume", directory, "--total-env-steps", "100")
        assert resumed.code == 0, resumed.printed
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("at", [0, 10])
def test_a_run_stays_in_its_directory_wherever_the_environment_takes_the_process(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its constructor, or in the middle of training."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    ended = run_planned(lambda step: os.chdir(tmp_path / "elsewhere") if step == at else None, Path("runs"))
    assert ended.code == 0, ended.printed
    assert f"Run directory: {tmp_path}/runs/Odd-v0/a" in ended.stdout
    assert not list((tmp_path / "elsewhere").iterdir())
    assert {path.name for path in (tmp_path / "runs" / "Odd-v0").iterdir()} == {"a"}
    os.chdir(tmp_path)
    resumed = run_planned(lambda step: None, Path("runs"), "--resume", "runs/Odd-v0/a", total=100)
    assert "resumed from the checkpoint at env step 60" in resumed.stdout
    assert resumed.code == 0, resumed.printed


REPLACED = (signal.SIGTERM, signal.SIGUSR1)


def _deaf(at: int, signalled: int, number: signal.Signals, step: int) -> None:
    """Is called in each step: ignores the signals, takes longer than a look at the handlers, and sends one."""
    if step == at:
        for replaced in REPLACED:
            signal.signal(replaced, signal.SIG_IGN)
    if at < step <= signalled:
        time.sleep(0.15)
    if step == signalled:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", REPLACED)
@pytest.mark.parametrize(
    ("at", "signalled", "done"),
    [
        (0, 1, "stopped and saved at env step 2;"),
        (11, 13, "stopped and saved at env step 14;"),
        (61, 63, "stopped during the final evaluation;"),
    ],
    ids=["constructor", "training", "final evaluation"],
)
def test_a_job_whose_environment_replaces_the_signal_handlers_is_stopped_and_saved(
    at: int, signalled: int, done: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handlers are installed again at the next look: before the first step, after 0.1 s, or in the next slice."""
    monkeypatch.setattr(evaluation, "_SLICE_SECONDS", 0.1)
    ended = run_planned(functools.partial(_deaf, at, signalled, number), tmp_path)
    assert ended.code == EXIT_REQUEUE, ended.printed
    assert done in ended.stdout
    resumed = run_planned(lambda step: None, tmp_path, "--resume", str(tmp_path / "Odd-v0" / "a"))
    assert f"resumed from the checkpoint at env step {min(signalled + 1, 60)}" in resumed.stdout
    assert resumed.code == 0, resumed.printed


def test_a_process_of_an_environment_that_is_killed_ends_the_run_and_is_named(tmp_path: Path) -> None:
    """In the middle of a run whose environments have processes of their own."""
    own = os.getpid()

    def kill(step: int) -> None:
        if step == 20 and os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)

    ended = run_planned(kill, tmp_path, "--vectorization", "async")
    assert ended.code == EXIT_USER_ERROR, ended.printed
    assert ended.printed.count("the process of environment 0 has died (killed by SIGKILL)") == 1
    assert "Traceback" not in ended.printed


@pytest.mark.parametrize("slow", ["environment", "learner step"])
def test_a_lone_rank_waits_for_nothing_and_so_has_no_limit(
    slow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step takes twice the limit of ranks that wait for one another."""

    def with_slow_learner(job: Job) -> bool:
        learn = job.learning.learner.learn
        delays = iter([0.0] * 4 + [2.0])  # the first calls may compile a graph
        job.learning.learner.learn = lambda *given: (time.sleep(next(delays, 0.0)), learn(*given))[1]  # type: ignore
        return trained(job)

    trained = train.train
    if slow == "learner step":
        monkeypatch.setattr(train, "train", with_slow_learner)
    seconds = {30: 2.0} if slow == "environment" else {}
    ended = run_planned(lambda step: time.sleep(seconds.get(step, 0.0)), tmp_path, "--stall-timeout-seconds", "1")
    assert ended.code == 0, ended.printed
    assert "got no further" not in ended.printed
