"""What the C library does with memory that has been freed."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of mallopt(3)."""
_KEPT_BYTES = 128 << 20
_LARGEST_KEPT_BYTES = 32 << 20
"""The most that mallopt takes."""


def keep_freed_memory() -> bool:
    """Makes this process keep up to 128 MiB of freed memory for its next arrays.

    Left alone, the C library gives memory back to the system now and then, which clears every page that it hands out
    again: to draw a batch of images into such pages takes two to five times as long.

    Returns:
      Whether it was done: under glibc, where the user has set no limits by environment variables.
    """
    if platform.libc_ver()[0] != "glibc" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES) and mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
