"""Flushing of denormal numbers to zero, as TensorFlow's own threads do it."""

from __future__ import annotations

import ctypes
import platform

import numpy as np

_ENVIRONMENT_BYTES = 32
_MXCSR_OFFSET = 28
_FLUSH_TO_ZERO, _DENORMALS_ARE_ZERO = 0x8000, 0x0040


def flush_denormals() -> bool:
    """Makes this thread, and threads that it starts, treat numbers below 1.2e-38 as zero.

    Momentum of weights whose gradient has become zero decays into such numbers, and a processor takes a hundred
    times longer over each. NumPy has no switch for it; the C library's floating-point environment does.

    Returns:
      Whether it could be done: on x86-64 with glibc, whose fenv_t ends in the MXCSR register.
    """
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        return False
    for dtype in (np.float32, np.float64):
        np.finfo(dtype)  # found out once, and it warns where denormals are zero
    maths = ctypes.CDLL("libm.so.6")
    environment = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
    maths.fegetenv(environment)
    register = ctypes.c_uint32.from_buffer(environment, _MXCSR_OFFSET)
    register.value |= _FLUSH_TO_ZERO | _DENORMALS_ARE_ZERO
    return bool(maths.fesetenv(environment) == 0)
