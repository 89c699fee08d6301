"""Brings a rank up: threads, quiet TensorFlow, device, Horovod."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvd_dqn.parallel.launcher import Launch

if TYPE_CHECKING:
    from hvd_dqn.parallel.ranks import Ranks

_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Runtime:
    """A rank that is up."""

    ranks: Ranks
    threads: int
    device: str
    on_gpu: bool


def prepare_environment(launch: Launch, threads_per_rank: int, stall_timeout_seconds: float) -> int:
    """Sets what must be set before NumPy, TensorFlow and Horovod are loaded; what the user has set stays.

    Args:
      launch: how this process was started.
      threads_per_rank: threads of each pool, 0 for this rank's share of the cores.
      stall_timeout_seconds: how long Horovod lets a rank wait for the others, 0 for ever.

    Returns:
      The threads per pool.
    """
    threads = threads_per_rank or launch.cores_per_rank
    defaults = {name: str(threads) for name in _POOLS}
    defaults["TF_CPP_MIN_LOG_LEVEL"] = "3"
    defaults["MPLCONFIGDIR"] = os.path.join(tempfile.gettempdir(), f"matplotlib-{os.getuid()}")
    if launch.size > 1:
        # A rank that spins while it waits starves whatever shares its core: TensorFlow's and Horovod's own threads too.
        defaults["OMPI_MCA_mpi_yield_when_idle"] = "1"
        # A learner step waits for Horovod's background thread to wake up; its default of 1 ms is longer than the step.
        defaults["HOROVOD_CYCLE_TIME"] = "0.1"
    if stall_timeout_seconds > 0:
        # The second line, effective with the MPI controller only: our own Watchdog speaks first.
        defaults["HOROVOD_STALL_CHECK_TIME_SECONDS"] = str(int(stall_timeout_seconds) + 1)
        defaults["HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"] = str(2 * int(stall_timeout_seconds) + 2)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    return threads


def start(launch: Launch, threads: int) -> Runtime:
    """Imports TensorFlow, pins this rank's GPU and joins the other ranks.

    A process that no launcher started, or that is alone, gets the null object: no Horovod, no background thread.

    Raises:
      ImportError: if TensorFlow or Horovod are not installed.
    """
    with _quiet_stderr():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        gpus = tf.config.list_physical_devices("GPU")
    from hvd_dqn.parallel.ranks import HorovodRanks, SingleRank

    elastic = os.environ.get("HOROVOD_ELASTIC") == "1"
    ranks: Ranks = HorovodRanks() if launch.size > 1 or elastic else SingleRank()  # COLLECTIVE
    device = f"CPU, {threads} thread(s)"
    if gpus:
        own = gpus[ranks.local_rank % len(gpus)]
        tf.config.set_visible_devices(own, "GPU")
        tf.config.experimental.set_memory_growth(own, True)
        device = tf.config.experimental.get_device_details(own).get("device_name", own.name)
    with _quiet_stderr():
        tf.function(lambda x: x + 1.0, jit_compile=True)(
            tf.constant(0.0)
        )  # XLA's service announces itself at its start
    return Runtime(ranks, threads, device, bool(gpus))


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Holds back what TensorFlow's C++ prints while it starts; shows it after all if it fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
