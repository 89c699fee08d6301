"""What a rank finds out about its host, its Python and its libraries, as JSON-ready facts for a diagnosis."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hvd_dqn.distributed.cores import cpu_quota, usable_cores
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.distributed.memory import usable_memory
from hvd_dqn.distributed.runtime import host_gpus, quiet_stderr
from hvd_dqn.fingerprint import git_revision, versions

_VARIABLES = re.compile(
    r"(HOROVOD|OMPI_MCA|NCCL|GLOO|UCX|TF|XLA|CUDA|NVIDIA|HVD_DQN)_\w+|(OMP|MKL|OPENBLAS)_NUM_THREADS"
)
"""The environment variables that change how ranks communicate and compute."""
_LAUNCHERS_OWN = re.compile(
    r"OMPI_MCA_(orte|ess|pmix|shmem|initial|plm|mpi_oversubscribe)\w*"
    r"|HOROVOD_(RANK|SIZE|LOCAL_\w+|CROSS_\w+|HOSTNAME|GLOO_RENDEZVOUS_\w+)|.*(SECRET|TOKEN|PASSWORD|KEY).*"
)
"""Those that a launcher sets for every job, and those that may be secret."""
_NVIDIA_SMI_SECONDS = 20.0


def host_facts(launch: Launch, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Returns what the standard library knows of this rank's host; loads nothing heavy.

    Args:
      launch: how this process was started.
      environ: its environment variables.
    """
    quota, shared = cpu_quota(), shutil.disk_usage("/dev/shm")
    return {
        "rank": launch.rank,
        "host": socket.gethostname(),
        "launcher": _launcher(launch, environ),
        "python": sys.executable,
        "revision": git_revision(),
        "versions": versions(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": usable_cores(),
        "cores_of_host": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "cpu_quota": None if math.isinf(quota) else quota,
        "load": os.getloadavg()[0],
        "memory": usable_memory(),
        "shm_free": shared.free,
        "shm_total": shared.total,
        "gpus": _gpus(),
        "mpirun": shutil.which("mpirun"),
        "variables": {
            name: value
            for name, value in sorted(environ.items())
            if _VARIABLES.fullmatch(name) and not _LAUNCHERS_OWN.fullmatch(name)
        },
    }


def library_facts(launch: Launch) -> dict[str, Any]:
    """Returns what TensorFlow, Horovod and MPI were built for, or the errors of their imports.

    Args:
      launch: how this process was started. A rank of MPI has initialised it already.
    """
    facts: dict[str, Any] = {}
    with quiet_stderr():
        try:
            import tensorflow as tf

            facts["tensorflow_gpus"] = len(tf.config.list_physical_devices("GPU"))
        except Exception as error:
            facts["tensorflow_error"] = _on_one_line(error)
        try:
            import horovod.tensorflow as hvd

            built = {"MPI": hvd.mpi_built, "Gloo": hvd.gloo_built, "NCCL": hvd.nccl_built}
            facts["horovod"] = {name: bool(has()) for name, has in built.items()}
        except Exception as error:
            facts["horovod_error"] = _on_one_line(error)
    try:
        import mpi4py

        mpi4py.rc.initialize = launch.under_mpi
        from mpi4py import MPI

        facts["mpi"] = MPI.Get_library_version().partition(",")[0].strip("\0 \n")
    except Exception as error:
        facts["mpi_error"] = _on_one_line(error)
    return facts


def _launcher(launch: Launch, environ: Mapping[str, str]) -> str:
    if not launch.under_launcher:
        return "none"
    if "SLURM_STEP_ID" in environ and "OMPI_COMM_WORLD_RANK" not in environ:
        return "srun"
    return "mpirun" if launch.under_mpi else "horovodrun"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _gpus() -> list[str]:
    """Returns the host's NVIDIA GPUs as its driver lists them."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_NVIDIA_SMI_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return host_gpus()
    return answer.stdout.strip().splitlines()


def _on_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
