"""The ranks of a job that an MPI launcher has started: MPI sends everything in host memory.

The native learner calls MPI_Allreduce itself, and no thread of Horovod's takes time from it. The gradients of the
general learner go through Horovod inside the graph; Horovod starts when that learner is built, and from then on sends
everything else, too: Open MPI 4.1 may deadlock when two threads communicate at once (its issue 11428).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.communicator import JSONCollectives, MPIHandles, Values
from hvd_dqn.distributed.horovod import HorovodCommunicator

_NICE_OF_HOROVOD = 10
"""How much nicer Horovod's thread is than the others: Linux then gives it a tenth of a core that is contended."""

_LOWEST_PRIORITY = 19


class Direct(JSONCollectives):
    """Collectives by mpi4py on a communicator of its own."""

    def __init__(self, communicator: Any) -> None:
        """Takes mpi4py's communicator."""
        self._communicator = communicator
        self.rank = communicator.Get_rank()

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""
        total = np.empty_like(values, order="C")
        self._communicator.Allreduce(np.ascontiguousarray(values), total)
        return total

    def broadcast(self, values: Values) -> Values:
        """Sends rank 0's tensor or array to all."""
        sent = np.array(values, order="C")
        self._communicator.Bcast(sent)
        return sent if isinstance(values, np.ndarray) else tf.convert_to_tensor(sent)

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns every rank's uint8 array [N_r], in the order of ranks."""
        sizes = np.empty(self._communicator.Get_size(), np.int64)
        self._communicator.Allgather(np.array(len(values), np.int64), sizes)
        joined = np.empty(sizes.sum(), np.uint8)
        self._communicator.Allgatherv(values, [joined, sizes])
        return np.split(joined, np.cumsum(sizes)[:-1])

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Sends the first rows uint8 [counts[0], R] to rank 0 and so on; returns those received, in order of ranks."""
        sent, width = np.array(counts, np.int64), rows.shape[1]
        taken = np.empty_like(sent)
        self._communicator.Alltoall(sent, taken)
        received = np.empty((taken.sum(), width), np.uint8)
        self._communicator.Alltoallv([np.ascontiguousarray(rows), sent * width], [received, taken * width])
        return received

    def barrier(self) -> None:
        """Waits for all ranks."""
        self._communicator.Barrier()


class MPICommunicator(JSONCollectives):
    """Collectives by mpi4py until Horovod starts, and by Horovod from then on: one thread at a time uses MPI."""

    controller = "MPI"

    def __init__(self, local_rank: int, ranks: Any = None) -> None:
        """Initialises MPI; a collective.

        Args:
          local_rank: this rank's number on its host.
          ranks: mpi4py's communicator over these ranks, for nothing else; None for all ranks of the launch.
        """
        # Before Horovod: who initialises MPI ends it, and Horovod would as soon as one rank has exited.
        from mpi4py import MPI

        self._mpi = MPI
        own = MPI.COMM_WORLD.Dup() if ranks is None else ranks  # COLLECTIVE
        self.rank: int = own.Get_rank()
        self.size: int = own.Get_size()
        self.local_rank = local_rank
        self._sender: JSONCollectives = Direct(own)
        handles = (MPI._handleof(of) for of in (MPI.FLOAT, MPI.SUM, own))
        self.mpi_handles: MPIHandles | None = MPIHandles(str(MPI.__file__), *handles)

    def start_horovod(self) -> None:
        """Starts Horovod on MPI's ranks.

        Its thread spins while it waits for the other ranks. With a lower priority it leaves the core at once to what
        computes: two ranks on two cores make 1.7 times as many updates.
        """
        if self._horovod is None:
            before = _threads()
            self._sender = HorovodCommunicator()  # COLLECTIVE
            for thread in _threads() - before:
                nice = os.getpriority(os.PRIO_PROCESS, thread) + _NICE_OF_HOROVOD
                os.setpriority(os.PRIO_PROCESS, thread, min(nice, _LOWEST_PRIORITY))

    def allreduce_in_graph(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a vector over the ranks by Horovod's ring-allreduce."""
        assert self._horovod is not None
        return self._horovod.allreduce_in_graph(vector)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""
        return self._sender.sum(values)

    def broadcast(self, values: Values) -> Values:
        """Sends rank 0's tensor or array to all."""
        return self._sender.broadcast(values)

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns every rank's uint8 array [N_r], in the order of ranks."""
        return self._sender.gather(values)

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Sends the first rows uint8 [counts[0], R] to rank 0 and so on; returns those received, in order of ranks."""
        return self._sender.exchange(rows, counts)

    def start_timeline(self, path: Path) -> None:
        """Lets Horovod write its timeline, if it sums the gradients; rank 0 does."""
        if self._horovod is not None:
            self._horovod.start_timeline(path)

    def barrier(self) -> None:
        """Waits for all ranks."""
        self._sender.barrier()

    def shutdown(self) -> None:
        """Ends Horovod; mpi4py ends MPI when the process exits."""
        if self._horovod is not None:
            self._horovod.shutdown()

    def abort(self, code: int) -> None:
        """Ends the job through MPI."""
        self._mpi.COMM_WORLD.Abort(code)
        os._exit(code)

    @property
    def _horovod(self) -> HorovodCommunicator | None:
        return self._sender if isinstance(self._sender, HorovodCommunicator) else None


def _threads() -> set[int]:
    """Returns the ids of this process' threads; Linux gives each a priority of its own."""
    return {int(name) for name in os.listdir("/proc/self/task")}
