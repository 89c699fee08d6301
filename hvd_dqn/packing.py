"""Plain values and arrays as JSON: what an environment's saved state is made of. Nothing is pickled."""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

import numpy as np

_LEVEL = 1
_MOST_PER_BYTE = 1100
"""zlib expands a byte to at most 1,032."""


def pack(value: Any, where: str = "the state") -> Any:
    """Returns plain values, arrays and their containers as JSON-ready values; `unpack` gives equal ones back.

    Args:
      value: None, numbers, text, bytes, NumPy arrays and scalars, in any nesting of lists, tuples and dictionaries
        with text as keys.
      where: the value's name in the error.

    Raises:
      TypeError: for anything else, naming the place.
    """
    if value is None or isinstance(value, str) or type(value) in (bool, int, float):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufcSU":
        array = np.asarray(value)
        return {"array": [array.dtype.str, list(array.shape), _encode(array.tobytes())]}
    if isinstance(value, bytes):
        return {"bytes": [len(value), _encode(value)]}
    if isinstance(value, (list, tuple)):
        items = [pack(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: pack(item, f"{where}[{key!r}]") for key, item in value.items()}}
    raise TypeError(f"{where} is a {type(value).__name__}")


def unpack(packed: Any) -> Any:
    """Returns what `pack` was given; arrays and containers are new.

    Raises:
      ValueError, TypeError: if the value is not a packed one; never takes more memory than its text could hold.
    """
    if isinstance(packed, list):
        return [unpack(item) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if len(packed) != 1:
        raise ValueError(f"a packed value has one kind, not {sorted(packed)}")
    ((kind, content),) = packed.items()
    if kind == "array":
        return _array(*content)
    if kind == "bytes":
        return _bytes(*content)
    if kind == "tuple" and isinstance(content, list):
        return tuple(unpack(content))
    if kind == "dict" and isinstance(content, dict):
        return {key: unpack(item) for key, item in content.items()}
    raise ValueError(f"there is no packed {str(kind)[:50]!r}")


def _array(dtype_name: str, shape: list[int], text: str) -> Any:
    """Returns an array, or a NumPy scalar if it has no dimension."""
    dtype = np.dtype(dtype_name)
    if dtype.kind not in "biufcSU" or any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"there is no packed array {dtype_name} {shape}")
    content = _decode(text, math.prod(shape) * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape).copy()[()]


def _bytes(count: int, text: str) -> bytes:
    return _decode(text, count)


def _encode(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, _LEVEL)).decode()


def _decode(text: str, count: int) -> bytes:
    """Returns the `count` bytes that a text holds."""
    compressed = base64.b64decode(text, validate=True)
    if not 0 <= count <= _MOST_PER_BYTE * len(compressed):
        raise ValueError(f"{len(compressed)} bytes do not hold {count}")
    try:
        content = zlib.decompressobj().decompress(compressed, count + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(content) != count:
        raise ValueError(f"there should be {count} bytes")
    return content
