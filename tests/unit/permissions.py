"""Lets a test that runs as root see files as their owner does: a mode without the read bit cannot be read."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_VERSION_3 = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def modes_apply() -> Iterator[None]:
    """Takes root's power over modes from this thread for a while; nothing changes for another user."""
    header, sets = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert _libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] = before & ~_OVERRIDES
    assert _libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert _libc.capset(header, sets) == 0
