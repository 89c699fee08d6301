"""Laws of the process's end: in time and with the job's exit code, whatever is left behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import multiprocessing, sys, threading, time
from hvd_dqn.run.leaving import bound_exit
if __name__ == "__main__":
    {left}
    bound_exit(75, seconds=0.2)
    sys.exit(75)
"""


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ("threading.Thread(target=threading.Event().wait, name='simulator').start()", "simulator"),
        ("multiprocessing.get_context('fork').Process(target=time.sleep, args=(5,), name='engine').start()", "engine"),
        ("threading.Thread(target=time.sleep, args=(0.01,)).start()", ""),
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", ""),
        ("pass", ""),
    ],
)
def test_the_process_ends_with_its_exit_code_whatever_is_left(left: str, words: str) -> None:
    run = [sys.executable, "-c", _PROGRAM.format(left=left)]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode == 75
    assert (f"what the environment left: {words}" in ended.stderr) if words else ended.stderr == ""
