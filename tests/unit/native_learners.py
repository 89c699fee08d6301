"""Builds small native learners for the tests; their MPI_Allreduce is a C function that asks the test."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from ctypes import POINTER, c_float, c_int
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hvd_dqn.distributed.communicator import MPIHandles
from hvd_dqn.learner.learner import Clock, no_clock
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.build import NativeAgent
from hvd_dqn.native.learner import NativeLearner
from hvd_dqn.native.library import load_library

from .learners import Exchange, split_settings

LIBRARY = load_library()

_DATATYPE, _OPERATION, MPI_ERROR = 11, 12, 13
_MPI_SOURCE = f"""
typedef int answer(const float *own, float *total, int count);
int MPI_Allreduce(const void *own, void *total, int count, void *datatype, void *operation, void *communicator) {{
    if (datatype != (void *){_DATATYPE} || operation != (void *){_OPERATION}) return {MPI_ERROR};
    return ((answer *)communicator)(own, total, count);
}}
"""
"""The handle of the communicator is the address of the test's function, which answers for all ranks."""
_Answer = ctypes.CFUNCTYPE(c_int, POINTER(c_float), POINTER(c_float), c_int)


def native_agent(network: keras.Model, initial: np.ndarray | None = None) -> NativeAgent:
    """Returns what builds a Keras network's native learner and ways to act."""
    layout = ParameterLayout(network)
    encodings = [layer for layer in network.layers if isinstance(layer, keras.layers.CategoryEncoding)]
    return NativeAgent(
        layout,
        layout.flatten_variables(network) if initial is None else initial,
        encodings[0].num_tokens if encodings else 0,
        np.dtype(network.inputs[0].dtype),
    )


def make_native_learner(
    network: keras.Model,
    batch_size: int,
    exchange: Exchange | None = None,
    *,
    initial: np.ndarray | None = None,
    clock: Clock = no_clock,
    mpi: MPIHandles | None = None,
    **changes: Any,
) -> NativeLearner:
    """Returns the native learner; see `MakeLearner`."""
    rule, settings = split_settings(batch_size, changes)
    answer = None if exchange is None else _answer_by(exchange)
    if answer is not None:
        mpi = mpi_handles(answer)
    learner = native_agent(network, initial).learner(
        settings, rule="double_dqn" if rule["double"] else "dqn", loss=rule["loss"], mpi=mpi, clock=clock
    )
    learner.answer = answer  # type: ignore[attr-defined]  # C calls it for as long as the learner lives
    return learner


def mpi_handles(answer: Any) -> MPIHandles:
    """Returns handles of an MPI_Allreduce that returns what `answer` returns.

    Args:
      answer: a function in C, (own float [count], total float [count], count) -> error; the caller keeps it.
    """
    address = ctypes.cast(answer, ctypes.c_void_p).value
    assert address is not None
    return MPIHandles(str(_mpi_library().name), _DATATYPE, _OPERATION, address)


def _answer_by(exchange: Exchange) -> Any:
    """Returns an exchange as a function in C."""

    def answer(own: Any, total: Any, count: int) -> int:
        vectors = (np.ctypeslib.as_array(pointer, (count,)) for pointer in (own, total))
        sent, received = vectors
        received[:] = exchange.answer(sent)
        return 0

    return _Answer(answer)


class _Library:
    """A compiled library in a folder that is deleted when Python exits."""

    def __init__(self, source: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.name = Path(self._folder.name) / "mpi.so"
        words = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(self.name)]
        subprocess.run(words, input=source, text=True, check=True)


@functools.cache
def _mpi_library() -> _Library:
    return _Library(_MPI_SOURCE)
