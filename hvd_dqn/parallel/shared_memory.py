"""Sums over the ranks of one host in memory that they share: no message, no other thread's latency.

MPI or Horovod carry all else; and the sums too once ranks are on several hosts.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from hvd_dqn.errors import UserError
from hvd_dqn.maths.kernels import LastAddress, aligned_zeros, function_address, load_kernels
from hvd_dqn.parallel.agreement import on_root, together
from hvd_dqn.parallel.ranks import CompiledExchange, Produce, Ranks, Rounds, Values, plain_rounds

_FOLDER = "/dev/shm"


class _Exchange(ctypes.Structure):
    """A vector's place in the memory and what was done there; twin of the struct in shared_sum.c."""

    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("rank", ctypes.c_size_t),
        ("ranks", ctypes.c_size_t),
        ("length", ctypes.c_size_t),
        ("meetings", ctypes.c_uint64),
        ("sums", ctypes.c_uint64),
    )


class SharedVector:
    """The ranks' vectors [N] and their sum. The file has no name once all have opened it: no kill leaves it behind."""

    def __init__(self, ranks: Ranks, length: int) -> None:
        """Takes the memory; a collective.

        Args:
          ranks: of one host; they carry the agreement.
          length: N.

        Raises:
          UserError: on all ranks, if the memory is short or is not the same on all.
        """
        kernels = together(ranks, load_kernels)  # COLLECTIVE
        size = kernels.shared_bytes(ranks.size, length)
        path, mark = on_root(ranks, lambda: _create(size))  # COLLECTIVE
        try:
            memory = together(ranks, lambda: _open(path, size, mark))  # COLLECTIVE
        finally:
            if ranks.rank == 0:
                os.unlink(path)
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))

        def vector_at(place: int) -> np.ndarray:
            return np.frombuffer(memory, np.float32, length, place - at)

        self._kernels, self._memory = kernels, memory
        self._exchange = _Exchange(at, ranks.rank, ranks.size, length)
        self._letter = vector_at(kernels.shared_letter(at, ranks.size, length))
        self._result = vector_at(kernels.shared_result(at, ranks.rank, ranks.size, length))
        self._result.flags.writeable = False
        self._own = LastAddress()
        self.compiled = CompiledExchange(function_address(kernels.shared_exchange), ctypes.addressof(self._exchange))
        """The same sum for compiled code."""

    def sum(self, vector: np.ndarray) -> np.ndarray:
        """Returns the sum over the ranks of float32 [N], read-only, in memory that the next call changes."""
        self._kernels.shared_exchange(self.compiled.context, self._own.of(vector))
        return self._result

    def broadcast(self, vector: np.ndarray) -> np.ndarray:
        """Returns a copy of rank 0's vector."""
        if self._exchange.rank == 0:
            self._letter[:] = vector
        self._meet()
        received = self._letter.copy()
        self._meet()
        return received

    def _meet(self) -> None:
        """Waits for all ranks."""
        own = self._exchange
        own.meetings += 1
        self._kernels.shared_meet(own.memory, own.rank, own.ranks, own.meetings)


class SharedMemoryRanks:
    """The ranks of one host: float32 vectors through shared memory, all else as the carrier does it."""

    def __init__(self, carrier: Ranks, required: bool) -> None:
        """Takes over a job's ranks.

        Args:
          carrier: these ranks over MPI or Horovod.
          required: whether memory that cannot be had is an error; if not, the carrier does everything.
        """
        self._carrier, self._required = carrier, required
        self._vectors: dict[int, SharedVector | None] = {}
        self.rank, self.size, self.local_rank = carrier.rank, carrier.size, carrier.local_rank
        self.controller = carrier.controller
        self.transport = "shared memory"

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a vector inside a tf.function; a step outside the graph, but not outside the call."""
        shared = self._vector(vector.shape[0])
        if shared is None:
            return self._carrier.allreduce_sum(vector)
        # TensorFlow may compute in the memory that it is given, so it gets its own; aligned, or it would copy it again.
        total = aligned_zeros(vector.shape[0])

        def exchange(values: np.ndarray) -> np.ndarray:
            np.copyto(total, shared.sum(values))
            return total

        return tf.ensure_shape(tf.numpy_function(exchange, [vector], vector.dtype), vector.shape)

    def make_rounds(self, length: int, produce: Produce, calls_tensorflow: bool = False) -> Rounds:
        """Returns a plain loop."""
        shared = self._vector(length)
        if shared is None:
            return self._carrier.make_rounds(length, produce, calls_tensorflow)
        return plain_rounds(length, produce, shared.sum)

    def compiled_exchange(self, length: int) -> CompiledExchange | None:
        """Returns the sum that `sum` makes."""
        shared = self._vector(length)
        return self._carrier.compiled_exchange(length) if shared is None else shared.compiled

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""
        shared = self._vector(values.size) if values.dtype == np.float32 else None
        if shared is None:
            return self._carrier.sum(values)
        return shared.sum(np.ascontiguousarray(values)).reshape(values.shape).copy()

    def broadcast(self, values: Values) -> Values:
        """Sends rank 0's tensor or array to all."""
        array = np.asarray(values)
        shared = self._vector(array.size) if array.dtype == np.float32 and array.size else None
        if shared is None:
            return self._carrier.broadcast(values)
        sent = shared.broadcast(array.ravel()).reshape(array.shape)
        return sent if isinstance(values, np.ndarray) else tf.convert_to_tensor(sent)

    def gather_json(self, value: Any) -> list[Any]:
        """Gathers by the carrier."""
        return self._carrier.gather_json(value)

    def broadcast_json(self, value: Any) -> Any:
        """Sends by the carrier."""
        return self._carrier.broadcast_json(value)

    def start_timeline(self, path: Path) -> None:
        """Lets Horovod write its timeline, which hears nothing of what goes through memory."""
        self._carrier.start_timeline(path)

    def barrier(self) -> None:
        """Waits by the carrier."""
        self._carrier.barrier()

    def shutdown(self) -> None:
        """Leaves the job."""
        self._carrier.shutdown()

    def abort(self, code: int) -> None:
        """Ends the job."""
        self._carrier.abort(code)

    def _vector(self, length: int) -> SharedVector | None:
        """Returns this length's memory, None where there is none; a collective at a length's first time."""
        if length not in self._vectors:
            try:
                self._vectors[length] = SharedVector(self._carrier, length)  # COLLECTIVE
            except UserError as error:
                if self._required:
                    raise
                self._vectors[length] = None
                self.transport = f"{self._carrier.transport} ({error})"
        return self._vectors[length]


def _create(size: int) -> tuple[str, str]:
    """Creates the file on rank 0 and returns its path and the mark at its end, by which the others know it.

    Raises:
      UserError: if there is not so much shared memory.
    """
    mark = secrets.token_hex(16)
    try:
        file, path = tempfile.mkstemp(prefix="hvd_dqn-", dir=_FOLDER)
    except OSError as error:
        raise UserError(f"no shared memory: {error}") from error
    try:
        os.posix_fallocate(file, 0, size + len(mark))  # taken now: a page that is missing later would be a SIGBUS
        os.pwrite(file, mark.encode(), size)
    except OSError as error:
        os.unlink(path)
        raise UserError(
            f"{size / 1e6:.0f} MB of shared memory in {_FOLDER}: {error.strerror}; a container's is set by --shm-size"
        ) from error
    finally:
        os.close(file)
    return path, mark


def _open(path: str, size: int, mark: str) -> mmap.mmap:
    """Maps the file.

    Raises:
      UserError: if this is not rank 0's file: another host, or another container.
    """
    try:
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
    except OSError as error:
        raise UserError(f"ranks do not share {_FOLDER}: {error.strerror}") from error
    if memory[size:] != mark.encode():
        raise UserError(f"ranks do not share {_FOLDER}: another file has the name {path}")
    return memory
