"""Sums over the ranks of one host in memory that they share: no message, no other thread's latency."""

from __future__ import annotations

import numpy as np

from hvd_dqn.distributed.carried_ranks import CarriedCommunicator
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.shared_vectors import SharedState, SharedVector
from hvd_dqn.errors import UserError
from hvd_dqn.native.memory import LearnerMemory, own_memory


class SharedMemoryCommunicator(CarriedCommunicator[SharedVector]):
    """The ranks of one host: float32 vectors through shared memory, all else as the carrier does it."""

    def __init__(self, carrier: Communicator, required: bool) -> None:
        """Takes over a job's ranks; see `CarriedCommunicator`."""
        super().__init__(carrier, "shared memory", required)
        self._states: list[SharedState] = []

    def take_memory(self, initial: np.ndarray, slots: int, length: int) -> LearnerMemory:
        """Takes memory in common where the vectors are long: each rank updates its part of a large network.

        Of short ones each updates all: that takes less time than to meet once more.
        """
        shared = self._exchange(length)
        if shared is None or shared.is_short:
            return own_memory(initial, slots, length)
        try:
            state = SharedState(self._carrier, initial, slots)  # COLLECTIVE
        except UserError:  # too little for the state, too
            return own_memory(initial, slots, length)
        self._states.append(state)
        shared.take_squares(state)
        return LearnerMemory(state.vectors, state.part, state.meeting, shared.slot, state.squares_at)

    def _make_exchange(self, length: int) -> SharedVector:
        return SharedVector(self._carrier, length)  # COLLECTIVE
