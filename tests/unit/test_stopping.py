"""Laws of stopping: real signals to real processes, and the watchdog."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hvd_dqn.distributed.watchdog import Watchdog
from hvd_dqn.run.stopping import StopRequest

from .conftest import SIGNALS


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_becomes_a_request_with_its_reason(number: signal.Signals) -> None:
    stop = StopRequest()
    assert not stop.requested
    stop.install()
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.requested
    assert stop.reason == number.name


def test_a_process_that_was_started_to_survive_its_terminal_does() -> None:
    """Under nohup a closed terminal is no request to stop, so Ctrl-C is the first one and not a second."""
    command = ["nohup", sys.executable, "-c", _CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            child.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "asked\n"
            time.sleep(0.2)
            assert child.poll() is None
        finally:
            child.kill()


@pytest.mark.parametrize("other", [signal.SIG_IGN, signal.SIG_DFL])
def test_handlers_that_an_environment_replaced_are_installed_again(other: signal.Handlers) -> None:
    stop = StopRequest()
    stop.keep_handlers()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, "nothing was installed"
    stop.install()
    wakeup = signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGUSR1, other)
    stop.keep_handlers()
    assert signal.set_wakeup_fd(wakeup) == wakeup
    os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.requested


def test_a_time_limit_first_asks_for_the_next_checkpoint_and_then_insists() -> None:
    stop = StopRequest()
    stop.request_in(0.1, grace_seconds=0.4, reason="time limit")
    assert not stop.at_checkpoint
    time.sleep(0.3)
    assert (stop.at_checkpoint, stop.requested) == (True, False)
    time.sleep(0.4)
    assert (stop.at_checkpoint, stop.requested, stop.reason) == (True, True, "time limit")


def test_a_time_limit_that_is_over_already_insists_at_once() -> None:
    stop = StopRequest()
    stop.request_in(-3.0, grace_seconds=2.0, reason="time limit")
    assert (stop.at_checkpoint, stop.requested) == (True, True)


_NOT_UNDER_NOHUP = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
"""The tests may be."""
_CHILD = """
import signal, sys, time
from hvd_dqn.run.stopping import StopRequest
stop = StopRequest()
stop.install()
print("ready", flush=True)
asked = False
while True:
    time.sleep(0.01)
    if stop.requested and not asked:
        asked = True
        print("asked", flush=True)
"""


def _signalled_twice(number: signal.Signals, second: signal.Signals, seconds_between: float = 0.0) -> int | None:
    """Returns the exit code after two signals, None if the process still lives."""
    with subprocess.Popen(
        [sys.executable, "-c", _NOT_UNDER_NOHUP + _CHILD], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            child.send_signal(number)
            assert child.stdout.readline() == "asked\n"
            time.sleep(seconds_between)
            child.send_signal(second)
            return child.wait(0.5)
        except subprocess.TimeoutExpired:
            return None
        finally:
            child.kill()


@pytest.mark.parametrize("first", SIGNALS)
def test_a_ctrl_c_after_a_signal_ends_the_process_at_once(first: signal.Signals) -> None:
    assert _signalled_twice(first, signal.SIGINT) == 128 + signal.SIGINT


@pytest.mark.parametrize("notice", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_notice_that_is_repeated_soon_is_the_same_and_later_a_second_one(notice: signal.Signals) -> None:
    assert _signalled_twice(signal.SIGTERM, notice) is None
    assert _signalled_twice(signal.SIGTERM, notice, seconds_between=5.5) == 128 + notice


_COMPUTING = """
import hashlib, os, threading, time
from hvd_dqn.run.stopping import StopRequest
stop = StopRequest()
stop.install()
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
"""


@pytest.mark.parametrize("first", SIGNALS)
def test_a_ctrl_c_after_a_signal_ends_a_process_that_waits_in_compiled_code(first: signal.Signals) -> None:
    """As a rank does whose peer is stuck: Python runs no handler before that returns."""
    program = _NOT_UNDER_NOHUP + _COMPUTING.replace("time.sleep(60)", "pass")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.2)
            child.send_signal(first)
            time.sleep(0.2)
            assert child.poll() is None
            child.send_signal(signal.SIGINT)
            assert child.wait(5.0) == 128 + signal.SIGINT
        finally:
            child.kill()


def test_a_signal_to_a_child_is_not_its_parents() -> None:
    """An environment's process that was forked from a rank gets the terminal's Ctrl-C as well."""
    own = "os.kill(os.getpid(), 2); time.sleep(0.3); os.kill(os.getpid(), 9)"
    program = _COMPUTING.replace("time.sleep(60)", own)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            assert parent.stdout.readline() == "ready\n"
            time.sleep(1.0)
            parent.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert parent.poll() is None
        finally:
            parent.kill()


def _watched(
    limit: float, folder: Path = Path("/nowhere"), size: int = 4
) -> tuple[Watchdog, threading.Event, list[int]]:
    fired, codes = threading.Event(), list[int]()

    def abort(code: int) -> None:
        codes.append(code)
        fired.set()

    dog = Watchdog(limit, 3, size, folder, abort)
    return dog, fired, codes


def test_a_silent_rank_is_ended_with_a_message_that_says_what_it_did(capfd: pytest.CaptureFixture[str]) -> None:
    dog, fired, codes = _watched(0.2)
    dog.start()
    dog.beat("evaluating")
    assert fired.wait(5.0)
    assert codes == [1]
    message = capfd.readouterr().err
    assert "rank 3 got no further for 0.2 s while evaluating" in message
    assert "--resume" in message


def test_the_message_names_the_call_into_an_environment_that_is_running(capfd: pytest.CaptureFixture[str]) -> None:
    fired = threading.Event()
    running = "reset() of environment 5"
    dog = Watchdog(0.2, 3, 4, Path("/nowhere"), lambda code: fired.set(), running=lambda: running)
    dog.start()
    dog.beat("starting")
    assert fired.wait(5.0)
    assert "for 0.2 s while starting (reset() of environment 5 is running)" in capfd.readouterr().err


def test_a_beat_prevents_the_watchdog_and_a_longer_allowance_too() -> None:
    """Beats for 1.5 s under a limit of 0.7 s; then one beat that allows ten limits."""
    dog, fired, _ = _watched(0.7)
    dog.start()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        dog.beat("training")
        assert not fired.wait(0.05)
    dog.beat("saving", allow=10.0)
    assert not fired.wait(1.5)
    dog.stop()


def test_a_limit_of_zero_watches_nothing_and_a_stopped_watchdog_never_fires() -> None:
    idle, idle_fired, _ = _watched(0.0)
    stopped, stopped_fired, _ = _watched(0.1)
    idle.start()
    stopped.start()
    stopped.stop()
    assert not stopped_fired.wait(0.8)
    assert not idle_fired.is_set()


def _watching(rank: int, doing: str, folder: Path) -> tuple[Watchdog, threading.Event]:
    """Returns a watchdog of one of three ranks, under a limit of 1.5 s."""
    fired = threading.Event()
    dog = Watchdog(1.5, rank, 3, folder, lambda code: fired.set())
    dog.start()
    dog.beat(doing)
    return dog, fired


def test_the_rank_that_gives_no_sign_of_life_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _, fired in [_watching(rank, "learning", tmp_path / "waiting") for rank in (0, 2)]:
        assert fired.wait(5.0)
    err = capfd.readouterr().err
    for rank in (0, 2):
        assert f"rank {rank} got no further for 1.5 s while learning: no sign of life from rank(s) 1," in err


def test_where_all_ranks_live_it_is_told_what_each_of_them_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dogs = [
        _watching(0, "learning", tmp_path),
        _watching(1, "collecting", tmp_path),
        _watching(2, "learning", tmp_path),
    ]
    for _, fired in dogs:
        assert fired.wait(5.0)
    assert "all ranks live, rank 0 learning, rank 1 collecting, rank 2 learning" in capfd.readouterr().err


def test_a_rank_that_goes_on_takes_its_mark_away_and_an_old_mark_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "waiting").mkdir()
    (tmp_path / "waiting" / "rank-00000").touch()
    dog, fired = _watching(0, "learning", tmp_path / "waiting")
    assert not (tmp_path / "waiting").exists()
    assert not fired.wait(1.3)
    assert (tmp_path / "waiting" / "rank-00000").read_text() == "learning"
    dog.beat("collecting", allow=10.0)
    assert not fired.wait(0.7)
    assert not (tmp_path / "waiting").exists()
    dog.stop()


_SUSPENDED = """
import os, time
from pathlib import Path
from hvd_dqn.distributed.watchdog import Watchdog
began = time.monotonic()
dog = Watchdog(2.6, 0, 1, Path("/nowhere"), os._exit)
dog.start()
print("ready", flush=True)
while time.monotonic() < began + 4.6:
    time.sleep(0.05)
os._exit(42)
"""


def test_a_suspended_process_is_not_blamed_for_the_time_it_did_not_see() -> None:
    """Stopped for 3 s under a limit of 2.6 s, then 1.6 s of silence: none of it is its fault."""
    with subprocess.Popen([sys.executable, "-c", _SUSPENDED], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
        child.send_signal(signal.SIGCONT)
        assert child.wait(20.0) == 42
