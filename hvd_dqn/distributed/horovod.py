"""The ranks of a Horovod job: Horovod sums the gradients inside the graph, and sends everything else too."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.communicator import JSONCollectives, MPIHandles, Values


class HorovodCommunicator(JSONCollectives):
    """The ranks of a Horovod job, under any controller and on any device.

    An elastic job may have one rank for a while, which need not wait for Horovod's thread to add nothing to a gradient.

    Collectives stay unnamed: Horovod's elastic wrapper recognises a lost peer by the operation's default name.
    """

    mpi_handles: MPIHandles | None = None

    def __init__(self) -> None:
        """Starts Horovod; a collective."""
        self.start()  # COLLECTIVE
        self.controller = "MPI" if self._hvd.mpi_enabled() else "Gloo"

    def start(self) -> None:
        """Starts Horovod, at first or after a shutdown; rank and size follow the launcher's variables."""
        import horovod.tensorflow as hvd

        # Milliseconds between two looks of Horovod's thread, for which every update waits.
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "0.1")
        self._hvd = hvd
        hvd.init()  # COLLECTIVE
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()

    def start_horovod(self) -> None:
        """Does nothing: it runs."""

    def allreduce_in_graph(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a vector over the ranks by ring-allreduce."""
        if self.size == 1:
            return vector
        return self._hvd.allreduce(vector, op=self._hvd.Sum)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""
        if self.size == 1:
            return values.copy()
        return self._hvd.allreduce(tf.constant(values), op=self._hvd.Sum).numpy()

    def broadcast(self, values: Values) -> Values:
        """Sends rank 0's tensor or array to all."""
        sent = self._hvd.broadcast(tf.convert_to_tensor(values), root_rank=0)
        return sent.numpy() if isinstance(values, np.ndarray) else sent

    def start_timeline(self, path: Path) -> None:
        """Lets Horovod write its timeline; rank 0 does."""
        self._hvd.start_timeline(str(path))

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Sends the first rows uint8 [counts[0], R] to rank 0 and so on; returns those received, in order of ranks."""
        received, _ = self._hvd.alltoall(tf.constant(rows), splits=tf.constant(counts, tf.int32))
        return received.numpy()

    def barrier(self) -> None:
        """Waits for all ranks; Horovod's TensorFlow binding has no barrier, and an allreduce is one."""
        self.sum(np.zeros(1, np.float32))

    def shutdown(self) -> None:
        """Ends Horovod."""
        self._hvd.shutdown()

    def abort(self, code: int) -> None:
        """Ends this process; the launcher notices and ends the job."""
        os._exit(code)

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns every rank's uint8 array [N_r], in the order of ranks."""
        sizes = self._hvd.allgather(tf.constant([len(values)])).numpy()
        joined = self._hvd.allgather(tf.constant(values)).numpy()
        return np.split(joined, np.cumsum(sizes)[:-1])
