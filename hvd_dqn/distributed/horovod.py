"""The ranks of a Horovod job, with Horovod as the carrier of everything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from hvd_dqn.distributed.communicator import ALONE, CompiledExchange, Produce, Rounds, Values, plain_rounds
from hvd_dqn.native.memory import LearnerMemory, own_memory


class HorovodCommunicator:
    """The ranks of a Horovod job, under any controller and on any device.

    An elastic job may have one rank for a while, which need not wait for Horovod's thread to add nothing to a gradient.

    Collectives stay unnamed: Horovod's elastic wrapper recognises a lost peer by the operation's default name.
    """

    transport = "Horovod"

    def __init__(self) -> None:
        """Initialises Horovod; a collective."""
        import horovod.tensorflow as hvd

        self._hvd = hvd
        self.join()  # COLLECTIVE
        self.controller = "MPI" if hvd.mpi_enabled() else "Gloo"

    def allreduce_sum(self, vector: tf.Tensor) -> tf.Tensor:
        """Sums a vector over the ranks by ring-allreduce."""
        if self.size == 1:
            return vector
        return self._hvd.allreduce(vector, op=self._hvd.Sum)

    def make_rounds(self, length: int, produce: Produce, calls_tensorflow: bool = False) -> Rounds:
        """Returns a TensorFlow loop where it may be one: from there an allreduce costs a fifth of one from Python."""
        if calls_tensorflow or self.size == 1:
            return plain_rounds(length, produce, self.sum)

        def produced(k: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            vector = tf.numpy_function(lambda k, total: produce(int(k), total), [k, total], tf.float32)
            return tf.ensure_shape(vector, [length])

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
        def run(rounds: tf.Tensor) -> tf.Tensor:
            _, total = tf.while_loop(
                lambda k, _: k < rounds,
                lambda k, total: (k + 1, self.allreduce_sum(produced(k, total))),  # COLLECTIVE
                (tf.constant(0), tf.zeros(length)),
                parallel_iterations=1,
            )
            return total

        loop = run.get_concrete_function()
        return lambda rounds: loop(tf.constant(rounds)).numpy()  # COLLECTIVE

    def compiled_exchange(self, length: int) -> CompiledExchange | None:
        """Returns none: Horovod is called through TensorFlow, and mpi4py through Python."""
        return ALONE if self.size == 1 else None

    def take_memory(self, initial: np.ndarray, slots: int, length: int) -> LearnerMemory:
        """Takes memory of this rank's own."""
        return own_memory(initial, slots, length)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums an array over the ranks."""
        if self.size == 1:
            return values.copy()
        return self._hvd.allreduce(tf.constant(values), op=self._hvd.Sum).numpy()

    def broadcast(self, values: Values) -> Values:
        """Sends rank 0's tensor or array to all."""
        sent = self._hvd.broadcast(tf.convert_to_tensor(values), root_rank=0)
        return sent.numpy() if isinstance(values, np.ndarray) else sent

    def gather_json(self, value: Any) -> list[Any]:
        """Gathers JSON texts as bytes; no pickle crosses the network."""
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        return [json.loads(part.tobytes()) for part in self._gather(text)]

    def broadcast_json(self, value: Any) -> Any:
        """Sends rank 0's value to all."""
        text = np.frombuffer(json.dumps(value if self.rank == 0 else None).encode(), np.uint8)
        size = int(self.broadcast(np.array(len(text))))
        padded = np.zeros(size, np.uint8)
        if self.rank == 0:
            padded[:] = text
        return json.loads(self.broadcast(padded).tobytes())

    def start_timeline(self, path: Path) -> None:
        """Lets Horovod write its timeline (rank 0 does); empty of gradients where MPI carries them."""
        self._hvd.start_timeline(str(path))

    def exchange(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        """Sends the first rows [counts[0], R] to rank 0 and so on; returns what this rank is sent, in their order."""
        received, _ = self._hvd.alltoall(tf.constant(rows), splits=tf.constant(counts, tf.int32))
        return received.numpy()

    def barrier(self) -> None:
        """Waits for all ranks; Horovod's TensorFlow binding has no barrier, and an allreduce is one."""
        self.sum(np.zeros(1, np.float32))

    def join(self) -> None:
        """Starts Horovod, at first or after a shutdown; rank and size are those of the launcher's variables now."""
        self._hvd.init()  # COLLECTIVE
        self.rank: int = self._hvd.rank()
        self.size: int = self._hvd.size()
        self.local_rank: int = self._hvd.local_rank()

    def shutdown(self) -> None:
        """Leaves Horovod."""
        self._hvd.shutdown()

    def abort(self, code: int) -> None:
        """Ends the job: through MPI where MPI runs it, else by leaving without a word, which the launcher sees."""
        if self.controller == "MPI":
            from mpi4py import MPI

            MPI.COMM_WORLD.Abort(code)
        os._exit(code)

    def _gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns every rank's uint8 array [N_r], in the order of ranks."""
        sizes = self._hvd.allgather(tf.constant([len(values)])).numpy()
        joined = self._hvd.allgather(tf.constant(values)).numpy()
        return np.split(joined, np.cumsum(sizes)[:-1])
