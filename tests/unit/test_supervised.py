"""Laws of supervised work: whatever it does, the process that supervises it returns in time with what it sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, signal, sys, time
from hvd_dqn.run.supervised import supervise

def work(send):
    send("pid", os.getpid())
    send("doing", "the work")
    {work}

found = {{}}
reason = supervise(work, lambda name, value: found.__setitem__(name, value), {seconds})
print(json.dumps([reason, found]), flush=True)
"""


def _start(work: str, seconds: float = 30.0) -> subprocess.Popen[str]:
    code = PROGRAM.format(work=work, seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=2, text=True)


def _answer(program: subprocess.Popen[str]) -> tuple[str, dict[str, Any]]:
    text, _ = program.communicate(timeout=60.0)
    reason, found = json.loads(text)
    assert found["doing"] == "the work"
    with pytest.raises(ProcessLookupError):
        os.kill(found["pid"], 0)
    return reason, found


def test_work_that_ends_has_no_reason_to_report() -> None:
    reason, found = _answer(_start("send('answer', [1, None])"))
    assert (reason, found["answer"]) == ("", [1, None])


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ("os.abort()", "it ended with SIGABRT"),
        ("raise ValueError", "it ended with exit code 1"),
        ("sys.exit(3)", "it ended with exit code 3"),
        ("os._exit(4)", "it ended with exit code 4"),
    ],
)
def test_a_crash_is_named_with_what_was_sent_before(work: str, reason: str) -> None:
    assert _answer(_start(work))[0] == reason


@pytest.mark.parametrize("work", ["time.sleep(600)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_work_that_hangs_is_killed(work: str) -> None:
    assert _answer(_start(work, seconds=1.0))[0] == "no progress within 1 s"


def test_work_that_hangs_when_it_ends_is_killed() -> None:
    """As MPI does when another rank is gone: the pipe is closed, the process lives."""
    assert _answer(_start("os.closerange(3, 100); time.sleep(600)", seconds=1.0))[0] == "it did not end within 1 s"


def test_a_signal_ends_both_and_what_was_sent_is_kept() -> None:
    """As mpirun sends when another rank has failed."""
    program = _start("time.sleep(600)")
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
    while not children.read_text():
        time.sleep(0.05)
    time.sleep(0.5)  # until both messages have arrived
    program.send_signal(signal.SIGTERM)
    assert _answer(program)[0] == "it was ended by SIGTERM"
