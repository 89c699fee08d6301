"""Brings a rank up: threads, quiet TensorFlow, device, Horovod."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvd_dqn.distributed.cores import cpu_quota, find_peers, own_cores, threads_of, usable_cores
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.errors import UserError

if TYPE_CHECKING:
    from hvd_dqn.distributed.communicator import Communicator

_EAGER_BYTES = 2**16
_BTL = "OMPI_MCA_btl"
_HOROVODS_BTL = "^openib"
"""The transports of Open MPI that `horovodrun --mpi` chooses: all but this one."""
_BOUND = "OMPI_MCA_orte_bound_at_launch"
"""What mpirun sets where it has bound each rank to cores."""
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Runtime:
    """A rank that is up."""

    communicator: Communicator
    threads: int
    device: str
    on_gpu: bool
    no_device: str = ""
    """Why this rank has nothing to compute on; empty if it has."""
    servers: Any = None
    """A worker's `hvd_dqn.learner.served.Servers`; None in a job without parameter servers."""


def prepare_environment(
    launch: Launch, threads_per_rank: int, stall_timeout_seconds: float, bind_to_cores: bool = True
) -> int:
    """Binds this rank to its cores and sets what must be set before NumPy, TensorFlow and Horovod are loaded.

    What the user has set stays. COLLECTIVE under MPI, where the ranks of a host compare their cores.

    Args:
      launch: how this process was started.
      threads_per_rank: threads of each pool, 0 for this rank's share of the cores.
      bind_to_cores: whether to bind this rank to its share of the cores: otherwise a waiting and a computing rank may
        run on one core while another core is idle.
      stall_timeout_seconds: how long Horovod lets a rank wait for the others, 0 for no limit.

    Returns:
      The threads per pool.
    """
    prepare_mpi(launch, usable_cores())
    cores = own_cores(find_peers(launch), sorted(os.sched_getaffinity(0)))  # COLLECTIVE
    if bind_to_cores:
        os.sched_setaffinity(0, cores)
    threads = threads_per_rank or threads_of(len(cores), launch.local_size, cpu_quota())
    defaults = {name: str(threads) for name in _POOLS}
    # On a host without GPUs TensorFlow reports each CUDA library that it does not find, as errors.
    defaults["TF_CPP_MIN_LOG_LEVEL"] = "2" if host_gpus() else "3"
    defaults["MPLCONFIGDIR"] = os.path.join(tempfile.gettempdir(), f"matplotlib-{os.getuid()}")
    if stall_timeout_seconds > 0:
        # The second line, effective with the MPI controller only: our own Watchdog speaks first.
        defaults["HOROVOD_STALL_CHECK_TIME_SECONDS"] = str(int(stall_timeout_seconds) + 1)
        defaults["HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"] = str(2 * int(stall_timeout_seconds) + 2)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # Keras' settings of the user's other projects (another backend, channels first) are not for this job.
    for name in [name for name in os.environ if name.startswith("KERAS_")]:
        del os.environ[name]
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}  # a folder that cannot have a keras.json
    return threads


def start(
    launch: Launch, threads: int, device: str, timeline: bool, connect: Callable[[], Communicator] | None = None
) -> Runtime:
    """Imports TensorFlow, pins this rank's GPU and joins the other ranks.

    A process that no launcher started, or that is alone, gets the null object: no Horovod, no background thread.

    Args:
      launch: how this process was started.
      threads: of TensorFlow's pools.
      device: auto, cpu or visible-gpu.
      timeline: whether Horovod is to be ready to write its timeline.
      connect: joins the other ranks, a collective; None where they stay the same for the whole job.

    Raises:
      ImportError: if TensorFlow or Horovod are not installed.
    """
    with quiet_stderr() as show:
        import tensorflow as tf

        with contextlib.suppress(
            RuntimeError
        ):  # a process that has computed before, such as a notebook's, keeps its pools
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        from hvd_dqn.distributed.devices import own_gpu, pin, visible_gpus

        gpus = visible_gpus(device)
        if device != "cpu" and not gpus and host_gpus():
            show()  # why TensorFlow cannot use them
    if timeline:
        os.environ.setdefault("HOROVOD_TIMELINE", "DYNAMIC")
    name, problem = f"CPU, {len(os.sched_getaffinity(0))} core(s), {threads} thread(s)", ""
    try:
        # Before anything computes: TensorFlow refuses to hide devices that it has begun to use.
        own = own_gpu(device, len(gpus), launch)
        if own is not None:
            name = pin(gpus[own])
    except UserError as error:
        problem = str(error)
    communicator = join(launch, connect)  # COLLECTIVE
    return Runtime(communicator, threads, name, bool(gpus), problem)


def join(launch: Launch, connect: Callable[[], Communicator] | None) -> Communicator:
    """Joins the other ranks; a collective."""
    if connect is not None:
        return connect()  # COLLECTIVE
    if launch.size == 1:
        from hvd_dqn.distributed.communicator import SingleCommunicator

        return SingleCommunicator()
    if launch.under_mpi:
        from hvd_dqn.distributed.mpi import MPICommunicator

        return MPICommunicator(launch.local_rank)  # COLLECTIVE
    from hvd_dqn.distributed.horovod import HorovodCommunicator

    return HorovodCommunicator()  # COLLECTIVE


def prepare_mpi(launch: Launch, cores: int) -> None:
    """Sets what Open MPI reads when it starts, where the user has not.

    Args:
      launch: how this process was started; between ranks on one host a message has next to no latency.
      cores: how many this process may use.
    """
    if cores < launch.local_size and _BOUND not in os.environ:
        # Ranks that share a core must leave it while they wait. Where each has its own, they must not: whatever else
        # wants a little of the core then gets a whole slice of time for every message.
        os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    # A small network's gradient goes through shared memory at once, not after an agreement with the receiver: a rank
    # that is early does not wait for the others before it can send (CartPole's two ranks: 11 % faster).
    os.environ.setdefault("OMPI_MCA_btl_vader_eager_limit", str(_EAGER_BYTES))
    os.environ.setdefault("OMPI_MCA_btl_vader_max_send_size", str(_EAGER_BYTES + 2**15))
    if launch.one_host:
        # The ranks share memory: none has to listen on the host's networks. horovodrun itself asks for "^openib".
        if os.environ.get(_BTL, _HOROVODS_BTL) == _HOROVODS_BTL:
            os.environ[_BTL] = f"{_HOROVODS_BTL},tcp"
    else:
        rules = Path(__file__).with_name("openmpi_allreduce.conf")
        os.environ.setdefault("OMPI_MCA_coll_tuned_use_dynamic_rules", "1")
        os.environ.setdefault("OMPI_MCA_coll_tuned_dynamic_rules_filename", str(rules))


def start_compiler() -> None:
    """Starts XLA's service and hides its message on standard error."""
    import tensorflow as tf

    with quiet_stderr():
        tf.function(lambda x: x + 1.0, jit_compile=True, autograph=False)(tf.constant(0.0))


def host_gpus() -> list[str]:
    """Returns the names of the device files of this host's NVIDIA GPUs."""
    return sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))


@contextlib.contextmanager
def quiet_stderr() -> Iterator[Callable[[], None]]:
    """Holds back what TensorFlow's C++ prints while it starts; shows it after all if the block fails or asks for it."""
    asked: list[bool] = []
    sys.stderr.flush()
    saved = os.dup(2)
    with os.fdopen(os.memfd_create("stderr"), "w+b") as held:  # in memory: no disk is full
        os.dup2(held.fileno(), 2)
        try:
            yield lambda: asked.append(True)
        except BaseException:
            asked.append(True)
            raise
        finally:
            sys.stderr.flush()
            if asked:
                held.seek(0)
                os.write(saved, held.read())
            os.dup2(saved, 2)
            os.close(saved)
