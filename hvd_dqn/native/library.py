"""The compiled functions of this package's C files, called by address: a call costs as much as one of NumPy's.

`make setup` compiles them into the environment (packaging/compile_kernels.py).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
from ctypes import c_float, c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.errors import UserError

LIBRARY = "_hvd_dqn_kernels"
PACKAGE = Path(__file__).resolve().parents[1]

_ALIGNMENT = 64
"""Bytes."""

_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "finite_norm": (ctypes.c_double, (c_void_p, c_size_t, c_size_t, c_void_p)),
    "norm_block": (c_size_t, (c_size_t,)),
    "clipping_factor": (ctypes.c_double, (ctypes.c_double, ctypes.c_double)),
    "optimizer_step": (None, (c_void_p, c_void_p, ctypes.c_double, c_uint64)),
    "learner_apply": (None, (c_void_p,) * 3),
    "learner_updates": (c_int, (c_void_p, c_size_t) + (c_void_p,) * 6),
    "network_gradient": (c_void_p, (c_void_p, c_size_t)),
    "rows_with_ones": (None, (c_void_p, c_size_t, c_size_t, c_float, c_void_p)),
    "products_supported": (c_int, ()),
    "product_panel_width": (c_size_t, ()),
    "network_forward": (None, (c_void_p,) * 3 + (c_size_t, c_void_p)),
    "network_values": (None, (c_void_p,) * 3 + (c_size_t, c_void_p, c_size_t, c_void_p)),
    "network_backward": (None, (c_void_p,) * 3 + (c_size_t, c_void_p, c_void_p)),
    "relu": (None, (c_void_p, c_size_t)),
    "relu_gradient": (None, (c_void_p, c_void_p, c_size_t)),
    "shared_bytes": (c_size_t, (c_size_t, c_size_t)),
    "shared_result": (c_void_p, (c_void_p,) + (c_size_t,) * 3),
    "shared_slot": (c_void_p, (c_void_p,) + (c_size_t,) * 3),
    "shared_part": (c_size_t, (c_size_t,) * 3),
    "shared_is_short": (c_int, (c_size_t,) * 2),
    "shared_state_bytes": (c_size_t, (c_size_t,) * 3),
    "shared_meeting": (None, (c_void_p,)),
    "shared_exchange": (c_void_p, (c_void_p, c_void_p)),
    "tcp_received_floats": (c_size_t, (c_size_t, c_size_t)),
    "tcp_exchange": (c_void_p, (c_void_p, c_void_p)),
    "hosts_exchange": (c_void_p, (c_void_p, c_void_p)),
    "q_learning_targets": (None, (c_void_p,) * 4 + (c_size_t, c_size_t, c_void_p)),
    "q_learning_gradient": (
        None,
        (c_void_p,) * 3 + (c_size_t, c_size_t, c_float, c_int) + (c_void_p,) * 2,
    ),
}


def load_kernels(path: Path | None = None) -> ctypes.CDLL:
    """Returns the library, its functions under their names in C.

    Args:
      path: of the library; by default where `make setup` has put it.

    Raises:
      UserError: if there is none, or one made from other sources than those beside this file.
    """
    spec = importlib.util.find_spec(LIBRARY) if path is None else None
    path = Path(spec.origin) if spec is not None and spec.origin else path
    if path is None:
        raise UserError(f"the compiled kernels are missing on this host: {_REMEDY}")
    library = ctypes.CDLL(str(path))
    library.source_digest.restype = ctypes.c_char_p
    if library.source_digest().decode() != source_digest():
        raise UserError(f"{path} was compiled from other sources than those in {PACKAGE}: {_REMEDY}")
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def source_digest() -> str:
    """Returns the digest of the C files that a library made from them answers with."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(PACKAGE.rglob("*.[ch]")))).hexdigest()


def aligned_zeros(length: int) -> np.ndarray:
    """Returns a float32 vector whose memory TensorFlow takes over as it is: it copies what is not so aligned."""
    floats = _ALIGNMENT // 4
    memory = np.zeros(length + floats, np.float32)
    start = -memory.ctypes.data % _ALIGNMENT // 4
    return memory[start : start + length]


def address(array: np.ndarray) -> int:
    """Returns where an array's memory begins; whoever keeps the address keeps the array.

    Raises:
      ValueError: if the array is not of the kind that kernels take: contiguous, float32, int32 or uint8.
    """
    if not array.flags.c_contiguous or array.dtype not in (np.float32, np.int32, np.uint8):
        raise ValueError(f"a kernel takes contiguous float32, int32 or uint8 arrays, not {array.dtype} {array.strides}")
    return array.ctypes.data


def function_address(function: Any) -> int:
    """Returns where a function of the library begins, for another one to call."""
    return ctypes.cast(function, c_void_p).value or 0


class LastAddress:
    """The address of an array that mostly is the one asked for before: NumPy takes a microsecond to tell it."""

    def __init__(self) -> None:
        """Knows none."""
        self._array: np.ndarray | None = None

    def of(self, array: np.ndarray) -> int:
        """Returns where the array's memory begins; it is kept until another one is asked for.

        Raises:
          ValueError: as `address`.
        """
        if array is not self._array:
            self._array, self._at = array, address(array)
        return self._at


_REMEDY = "run `make setup`, or `pip install --no-deps -e .` in an environment of your own"
