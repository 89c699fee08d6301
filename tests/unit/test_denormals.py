"""Laws of flushing denormals, each in a process of its own: the switch stays on."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import threading
import numpy as np
from hvd_dqn.maths.denormals import flush_denormals
tiny = np.full(100, 1e-38, np.float32)
before = (tiny * np.float32(0.1)).any()
done = flush_denormals()
found = []
def look(): found.append(bool((tiny * np.float32(0.1)).any()))
look()
thread = threading.Thread(target=look); thread.start(); thread.join()
np.finfo(np.float32); np.finfo(np.float64); str(np.float32(1.5)); repr(np.ones(2, np.float32))
print(bool(before), done, found)
"""


@pytest.mark.unit
def test_denormals_become_zero_here_and_in_threads_started_later() -> None:
    result = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True True [False, False]"
    assert result.stderr == ""
