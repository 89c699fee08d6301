"""Memory that an iteration frees is there for the next one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hvd_dqn.native.heap import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from hvd_dqn.native.heap import keep_freed_memory

if sys.argv[1] == "kept":
    print(keep_freed_memory())
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(1_000_000, np.float32) for _ in range(6)]
    del arrays
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
SOME = 300
"""Page faults; 24 MB are 5,860 pages, or 11 huge ones and what is left of the arrays beside them."""


def _output(*arguments: str, **variables: str) -> list[str]:
    words = [sys.executable, "-c", FAULTS, *arguments]
    job = subprocess.run(words, env=variables, capture_output=True, text=True, check=True)
    return job.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_an_iterations_arrays_take_no_new_pages_from_the_system() -> None:
    """Alone, the C library gives most of them back each time."""
    assert all(int(number) > SOME for number in _output("alone")[2:])
    done, *faults = _output("kept")
    assert done == "True"
    assert all(int(number) < SOME for number in faults[2:]), faults


def test_the_users_own_limits_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not keep_freed_memory()
