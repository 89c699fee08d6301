"""Laws of flushing denormals, each in a process of its own: the switch stays on."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import threading
import numpy as np
TYPES = ((np.float32, np.uint32), (np.float64, np.uint64))
tiny = {np.float32: np.full(100, 2.0**-126, np.float32), np.float64: np.full(100, 2.0**-1022)}
denormal = {dtype: np.full(100, 1000, bits).view(dtype) for dtype, bits in TYPES}
seen = []
def look():
    made = [bool((tiny[dtype] * dtype(0.1)).view(bits).any()) for dtype, bits in TYPES]
    taken = [bool((denormal[dtype] * dtype(2**30)).view(bits).any()) for dtype, bits in TYPES]
    seen.append(made + taken)
def look_in_a_thread():
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
look()
"""
FLUSH = """
from hvd_dqn.native.denormals import flush_denormals
thirds = np.arange(1, 100, dtype=np.float32) / 3
done = flush_denormals()
look()
look_in_a_thread()
for dtype in tiny:
    np.finfo(dtype).smallest_subnormal
str(np.float32(1.5)), repr(np.ones(2, np.float32))
assert all((values == values * dtype(1.0)).all() and values.all() for dtype, values in tiny.items())
assert (thirds == np.arange(1, 100, dtype=np.float32) / 3).all()
with np.errstate(divide="ignore"):
    assert np.isinf(np.ones(1, np.float32) / 0).all()
print(done, seen)
"""
START = """
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.distributed.runtime import start
start(Launch(), 1, "auto", "cpu", timeline=False)
look()
look_in_a_thread()
print(seen)
"""


SEEN = str([[True] * 4, [False] * 4, [False] * 4])
"""Before, after, and in a thread that is started after."""


def _output(program: str, *options: str) -> str:
    """Runs a program in a Python of its own that must end well and without a word of complaint."""
    result = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def test_denormals_become_zero_here_and_in_threads_started_later() -> None:
    """Of either width; normal numbers, rounding and infinities stay as they were, and NumPy has nothing to warn of."""
    assert _output(LOOK + FLUSH, "-W", "error") == f"True {SEEN}"


def test_a_rank_that_is_up_flushes_them() -> None:
    assert _output(LOOK + START) == SEEN
