"""The compiled functions of this folder's C files.

`make setup` compiles them into the environment (packaging/compile_kernels.py).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
from ctypes import c_double, c_float, c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path

import numpy as np

from hvd_dqn.errors import UserError

LIBRARY = "_hvd_dqn_kernels"
FOLDER = Path(__file__).resolve().parent

_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "products_supported": (c_int, ()),
    "product_panel_width": (c_size_t, ()),
    "rows_with_ones": (None, (c_void_p, c_size_t, c_size_t, c_float, c_void_p)),
    "mlp_outputs": (None, (c_void_p, c_void_p, c_void_p, c_size_t, c_void_p)),
    "mlp_forward": (None, (c_void_p, c_void_p, c_void_p, c_size_t)),
    "mlp_backward": (None, (c_void_p, c_void_p, c_void_p, c_size_t, c_void_p)),
    "q_learning_targets": (None, (c_void_p,) * 4 + (c_size_t, c_size_t, c_void_p)),
    "finite_norm": (c_double, (c_void_p, c_size_t, c_size_t)),
    "clipping_factor": (c_double, (c_double, c_double)),
    "optimizer_step": (None, (c_void_p, c_void_p, c_double, c_uint64)),
    "learner_updates": (c_int, (c_void_p,) * 4),
    "struct_bytes": (c_size_t, (c_int,)),
}
STRUCTS = ("mlp", "optimizer", "learner", "batches", "report")
"""In the order of `struct_bytes` in updates.c."""


def load_library(path: Path | None = None) -> ctypes.CDLL:
    """Returns the library, its functions under their names in C.

    Args:
      path: of the library; by default where `make setup` has put it.

    Raises:
      UserError: if there is none, or one made from other sources than those next to this file.
    """
    spec = importlib.util.find_spec(LIBRARY) if path is None else None
    path = Path(spec.origin) if spec is not None and spec.origin else path
    if path is None:
        raise UserError(f"the compiled library of the native learner is missing on this host: {_REMEDY}")
    library = ctypes.CDLL(str(path))
    library.source_digest.restype = ctypes.c_char_p
    if library.source_digest().decode() != source_digest():
        raise UserError(f"{path} was compiled from other sources than those in {FOLDER}: {_REMEDY}")
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def source_digest() -> str:
    """Returns the digest of the C files that a library made from them answers with."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]")))).hexdigest()


def check_struct(library: ctypes.CDLL, name: str, twin: type[ctypes.Structure]) -> None:
    """Checks that a struct takes as many bytes in Python as in C."""
    in_c, in_python = library.struct_bytes(STRUCTS.index(name)), ctypes.sizeof(twin)
    assert in_c == in_python, f"struct {name}: {in_c} bytes in C, {in_python} in Python"


def pointer(array: np.ndarray) -> int:
    """Returns the address of an array's memory. The caller must hold the array as long as the pointer.

    Raises:
      ValueError: if the array is not of the kind that C takes: contiguous, float32 or int32.
    """
    if not array.flags.c_contiguous or array.dtype not in (np.float32, np.int32):
        raise ValueError(f"C takes contiguous float32 or int32 arrays, not {array.dtype} {array.strides}")
    return array.ctypes.data


_REMEDY = "run `make setup`, or `pip install --no-deps -e .` in an environment of your own"
