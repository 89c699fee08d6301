"""Sums over the ranks of one host, and vectors that they have in common, in memory that they share (shared_sum.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from hvd_dqn.distributed.agreement import raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.exchanged_vector import ExchangedVector
from hvd_dqn.distributed.shared_file import open_shared
from hvd_dqn.native.library import function_address, load_kernels


class SharedExchange(ctypes.Structure):
    """The memory of some vectors and what was done there; twin of the struct in shared_sum.c."""

    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("rank", ctypes.c_size_t),
        ("ranks", ctypes.c_size_t),
        ("length", ctypes.c_size_t),
        ("meetings", ctypes.c_uint64),
        ("sums", ctypes.c_uint64),
        ("squares", ctypes.c_void_p),
        ("parameters", ctypes.c_size_t),
    )


class SharedVector(ExchangedVector):
    """The ranks' vectors [N] and their sum."""

    def __init__(self, communicator: Communicator, length: int, group: Sequence[int] = ()) -> None:
        """Takes the memory; a collective.

        Args:
          communicator: they carry the agreement.
          length: N.
          group: those of this host, whose vectors these are; by default all are on one.

        Raises:
          UserError: on all ranks, if the memory is short or is not the same on all of a host.
        """
        group = group or range(communicator.size)
        rank, size = group.index(communicator.rank), len(group)
        kernels = raise_on_any_rank(communicator, load_kernels)  # COLLECTIVE
        memory = open_shared(communicator, kernels.shared_bytes(size, length), group)  # COLLECTIVE
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))

        def vector_at(place: int) -> np.ndarray:
            return np.frombuffer(memory, np.float32, length, place - at)

        self._memory, self._shared = memory, SharedExchange(at, rank, size, length)
        result = vector_at(kernels.shared_result(at, rank, size, length))
        super().__init__(kernels.shared_exchange, self._shared, result)
        self.is_short = bool(kernels.shared_is_short(size, length))
        """Whether a sum takes one meeting point, not two."""
        self.slot = vector_at(kernels.shared_slot(at, size, length, rank))
        """Float32 [N], from where this rank's vector need not be copied if it is long."""

    def take_squares(self, state: SharedState) -> None:
        """Leaves the squares of a sum's blocks, its first P numbers, with a state's, from now on."""
        self._shared.squares, self._shared.parameters = state.squares_at, state.vectors[0].size


class SharedState:
    """Vectors [P] that all ranks have in common, each changing a part of them."""

    def __init__(self, communicator: Communicator, initial: np.ndarray, slots: int) -> None:
        """Takes the memory; a collective.

        Args:
          communicator: of one host; they carry the agreement.
          initial: float32 [P], what the first vector holds to begin with.
          slots: how many more there are, of zeros.

        Raises:
          UserError: on all ranks, if the memory is short or is not the same on all.
        """
        length, size = initial.size, communicator.size
        kernels = raise_on_any_rank(communicator, load_kernels)  # COLLECTIVE
        blocks = -(-length // kernels.norm_block(length))
        vectors_bytes = kernels.shared_state_bytes(size, length, 1 + slots)
        memory = open_shared(communicator, vectors_bytes + blocks * ctypes.sizeof(ctypes.c_double))  # COLLECTIVE
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        places = [kernels.shared_slot(at, size, length, i) - at for i in range(1 + slots)]
        self.vectors = tuple(np.frombuffer(memory, np.float32, length, place) for place in places)
        self.part = slice(
            *(kernels.shared_part(rank, size, length) for rank in (communicator.rank, communicator.rank + 1))
        )
        """Of the vectors, what this rank changes."""
        self.squares_at = at + vectors_bytes if blocks > 1 else 0
        """Where the squares of a gradient's blocks lie for all; zero for one that has one block, which all take."""
        if communicator.rank == 0:
            self.vectors[0][:] = initial
        self._memory, self._exchange = memory, SharedExchange(at, communicator.rank, size, length)
        self.meeting = function_address(kernels.shared_meeting), ctypes.addressof(self._exchange)
        """Where all meet, for compiled code."""
        communicator.barrier()  # COLLECTIVE
