"""Runs work that may hang or crash in a process of its own, and receives what it finds out until then."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

Send = Callable[[str, Any], None]
"""send(name, value): value is JSON-ready."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_READ_BYTES = 2**16


class _Interrupted(Exception):
    """A signal to the process that supervises."""


def supervise(work: Callable[[Send], None], receive: Send, seconds: float) -> str:
    """Forks a process for the work and waits for its end, whatever compiled code does there.

    The forked process does not return from here: it ends through SystemExit, so that libraries end as they should.

    Args:
      work: sends messages as it proceeds. Called in the forked process.
      receive: takes each message. Called in this process.
      seconds: time without a message after which the forked process is killed.

    Returns:
      "" if the work ended by itself, otherwise the reason why it did not.
    """
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _work(work, write_end)
    os.close(write_end)
    heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # not a hang-up under nohup
    before = {number: signal.signal(number, _interrupt) for number in heard}
    try:
        reason = _receive_all(read_end, receive, seconds)
        return reason or _ending(child, seconds)
    except _Interrupted as interrupted:
        return f"it was ended by {interrupted}"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_end)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _work(work: Callable[[Send], None], write_end: int) -> None:
    """Runs the work in the forked process and ends it."""

    def send(name: str, value: Any) -> None:
        os.write(write_end, json.dumps([name, value]).encode() + b"\n")

    try:
        work(send)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise _Interrupted(signal.Signals(number).name)


def _receive_all(read_end: int, receive: Send, seconds: float) -> str:
    """Receives messages until the process has closed its end; returns "" or the reason why it was not waited for."""
    text = b""
    while True:
        ready, _, _ = select.select([read_end], [], [], seconds)
        if not ready:
            return f"no progress within {seconds:g} s"
        received = os.read(read_end, _READ_BYTES)
        if not received:
            return ""
        *lines, text = (text + received).split(b"\n")
        for line in lines:
            receive(*json.loads(line))


def _ending(child: int, seconds: float) -> str:
    """Waits for the process, which has closed its end; returns "" or how it failed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return "" if code == 0 else f"it ended with {_named(code)}"
        time.sleep(0.01)
    return f"it did not end within {seconds:g} s"


def _named(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
