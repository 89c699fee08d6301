"""What compiled passes are told, as ctypes structures: twins of the structs in network.h and torso.h."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_size_t, c_void_p


class ConvolutionStruct(ctypes.Structure):
    """`struct convolution`."""

    _fields_ = (
        *((name, c_size_t) for name in ("height", "width", "channels", "size", "stride", "filters", "at_once")),
        *((name, c_void_p) for name in ("positions", "numbers")),
    )


class TorsoStruct(ctypes.Structure):
    """`struct torso`."""

    _fields_ = (
        ("convolutions", c_void_p),
        ("depth", c_size_t),
        ("parameters", c_size_t),
        ("bytes", c_size_t),
        ("scale", c_float),
    )


class NetworkStruct(ctypes.Structure):
    """`struct network`."""

    _fields_ = (("widths", c_void_p), ("layers", c_size_t), ("row_bytes", c_size_t), ("torso", c_void_p))


class TorsoPassStruct(ctypes.Structure):
    """`struct torso_pass`."""

    _fields_ = (
        ("rows", c_size_t),
        *((name, c_void_p) for name in ("images", "patch_gradients", "values", "gradients")),
    )


class PassStruct(ctypes.Structure):
    """`struct pass`."""

    _fields_ = (
        *((name, c_void_p) for name in ("values", "gradients", "panel")),
        ("torso", TorsoPassStruct),
        *((name, c_void_p) for name in ("features", "feature_gradients")),
    )
